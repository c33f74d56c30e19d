use std::{fmt, str::FromStr};

use clap::ValueEnum;
use serde::Deserialize;
use thiserror::Error;

use super::{Cidr, Direction, Mode, ParseCidrError, ParsePortError, Port, mode::ParseModeError};

/// A [`Mode`] for some connections of one direction, in place of the direction's default.
///
/// On the command line `outbound,cidr=10.0.0.0/8,port=5432,mode=strict`, in a file a mapping with
/// the same names.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModeOverride {
    /// The remote addresses it covers: destinations outbound, clients inbound. All when absent.
    pub cidr: Option<Cidr>,
    /// The direction it belongs to.
    pub direction: Direction,
    /// The mode that holds instead of the default.
    pub mode: Mode,
    /// The destination port it covers, in both directions. All when absent.
    pub port: Option<Port>,
}

impl fmt::Display for ModeOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.direction)?;
        if let Some(cidr) = self.cidr {
            write!(f, ",cidr={cidr}")?;
        }
        if let Some(port) = self.port {
            write!(f, ",port={port}")?;
        }
        write!(f, ",mode={}", self.mode)
    }
}

impl FromStr for ModeOverride {
    type Err = ParseOverrideError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',').map(str::trim);
        let direction = parts.next().unwrap_or_default();
        let direction = <Direction as ValueEnum>::from_str(direction, false)
            .map_err(|_| ParseOverrideError::Direction(direction.to_owned()))?;

        let (mut cidr, mut mode, mut port) = (None, None, None);
        for part in parts {
            let repeated = match part.split_once('=') {
                Some(("cidr", value)) => cidr.replace(value.parse()?).is_some(),
                Some(("mode", value)) => mode.replace(value.parse()?).is_some(),
                Some(("port", value)) => port.replace(value.parse()?).is_some(),
                _ => return Err(ParseOverrideError::Part(part.to_owned())),
            };
            if repeated {
                return Err(ParseOverrideError::Repeated(part.to_owned()));
            }
        }

        Ok(Self {
            cidr,
            direction,
            mode: mode.ok_or(ParseOverrideError::NoMode)?,
            port,
        })
    }
}

/// The text is no [`ModeOverride`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParseOverrideError {
    /// The range of addresses is wrong.
    #[error(transparent)]
    Cidr(#[from] ParseCidrError),
    /// The first part is no direction.
    #[error("`{0}` is not a direction; an override starts with inbound or outbound")]
    Direction(String),
    /// The mode is wrong.
    #[error(transparent)]
    Mode(#[from] ParseModeError),
    /// There is no mode to override with.
    #[error("the override names no mode; add mode=off, mode=permissive or mode=strict")]
    NoMode,
    /// A part is not one of the known pairs.
    #[error("`{0}` is not part of an override; write cidr=RANGE, port=NUMBER or mode=MODE")]
    Part(String),
    /// The port is wrong.
    #[error(transparent)]
    Port(#[from] ParsePortError),
    /// A pair occurs twice.
    #[error("`{0}` repeats a part of the override; write one override for each combination")]
    Repeated(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_read_as_it_is_written() {
        for text in [
            "outbound,cidr=10.0.0.0/8,port=5432,mode=strict",
            "inbound,port=22,mode=off",
            "inbound,cidr=fd00::/8,mode=permissive",
            "outbound,mode=off",
        ] {
            let parsed: ModeOverride = text.parse().expect(text);
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn each_wrong_part_has_its_own_sentence() {
        for (text, sentence) in [
            (
                "",
                "`` is not a direction; an override starts with inbound or outbound",
            ),
            (
                "sideways,mode=off",
                "`sideways` is not a direction; an override starts with inbound or outbound",
            ),
            (
                "inbound,port=22",
                "the override names no mode; add mode=off, mode=permissive or mode=strict",
            ),
            (
                "inbound,ports=22,mode=off",
                "`ports=22` is not part of an override; \
                 write cidr=RANGE, port=NUMBER or mode=MODE",
            ),
            (
                "inbound,port=22,port=23,mode=off",
                "`port=23` repeats a part of the override; \
                 write one override for each combination",
            ),
            (
                "inbound,port=ssh,mode=off",
                "`ssh` is not a port; write a number from 1 to 65535",
            ),
        ] {
            let error = text.parse::<ModeOverride>().expect_err(text);
            assert_eq!(error.to_string(), sentence);
        }
    }
}
