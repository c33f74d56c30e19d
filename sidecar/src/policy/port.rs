use std::{fmt, num::NonZeroU16, str::FromStr};

use thiserror::Error;

use super::text::deserialize_from_str;

/// A TCP port that a connection can have as its destination: 1 to 65535.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port(NonZeroU16);

impl Port {
    /// The number, in host byte order.
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Port {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| ParsePortError(text.to_owned()))
    }
}

deserialize_from_str!(Port);

/// The text is no [`Port`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a port; write a number from 1 to 65535")]
pub struct ParsePortError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        for (text, number) in [("1", 1), ("8080", 8080), ("65535", 65535)] {
            assert_eq!(text.parse::<Port>().map(Port::number), Ok(number));
        }
        for text in ["", "0", "65536", "-1", "http", "80 "] {
            let error = text.parse::<Port>().expect_err(text);
            assert_eq!(
                error.to_string(),
                format!("`{text}` is not a port; write a number from 1 to 65535")
            );
        }
    }
}
