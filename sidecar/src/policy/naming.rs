use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Mode;

/// What happens where a server proves a valid identity, and the cluster names others for its
/// address.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// It is refused where the mode is strict, and reported elsewhere
    #[default]
    Strict,
    /// It is refused, whatever the mode
    Enforce,
    /// It is counted and logged
    Report,
    /// Nobody looks
    Off,
}

impl Naming {
    /// The name used in flags and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Enforce => "enforce",
            Self::Report => "report",
            Self::Off => "off",
        }
    }

    /// Is such a server refused, where connections have this mode?
    pub fn refuses(self, mode: Mode) -> bool {
        match self {
            Self::Strict => mode == Mode::Strict,
            Self::Enforce => true,
            Self::Report | Self::Off => false,
        }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_another_name_is_refused_where_that_was_asked_for() {
        let refused = |naming: Naming| {
            [Mode::Off, Mode::Permissive, Mode::Strict].map(|mode| naming.refuses(mode))
        };
        assert_eq!(refused(Naming::Strict), [false, false, true]);
        assert_eq!(refused(Naming::Enforce), [true; 3]);
        assert_eq!(refused(Naming::Report), [false; 3]);
        assert_eq!(refused(Naming::Off), [false; 3]);
    }
}
