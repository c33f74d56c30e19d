use std::{
    io::{self, Write as _},
    ops::ControlFlow,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// How a command shows what it found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Prints for people and programs alike. To break means that nobody reads on, such as a `head` that has
/// seen enough.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Several lines of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
