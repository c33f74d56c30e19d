use std::{fmt, str::FromStr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How much a connection must be protected before its bytes may pass.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Left alone by the kernel, as if there were no sidecar
    Off,
    /// Mutual TLS with a peer that has a sidecar, plaintext with one that has none
    #[default]
    Permissive,
    /// Mutual TLS, or no connection
    Strict,
}

impl Mode {
    /// The name used in flags, files, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| ParseModeError(text.to_owned()))
    }
}

/// The text names no [`Mode`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a mode; write off, permissive or strict")]
pub struct ParseModeError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in Mode::value_variants() {
            assert_eq!(mode.to_string().parse(), Ok(*mode));
        }
    }

    #[test]
    fn an_unknown_mode_is_refused() {
        let error = "strickt".parse::<Mode>().expect_err("not a mode");
        assert_eq!(
            error.to_string(),
            "`strickt` is not a mode; write off, permissive or strict"
        );
    }
}
