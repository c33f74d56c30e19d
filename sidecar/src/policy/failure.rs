use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What happens to a connection while no proxy serves: it has been killed, or drains.
///
/// A connection whose mode is [`Mode::Strict`](super::Mode::Strict) is refused either way.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// It is refused
    #[default]
    Closed,
    /// It goes past the sidecar, in plaintext
    Open,
}

impl Failure {
    /// The name used in flags and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
