use clap::ValueEnum;

/// How a command shows what it found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For programs.
    Json,
    /// For people.
    Text,
}
