use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{Port, text::deserialize_from_str};

/// Destination ports as a user writes them: `8080`, or `8000-8099` with both ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// Is the port one of them?
    pub fn contains(self, port: u16) -> bool {
        (self.first.number()..=self.last.number()).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl FromStr for PortRange {
    type Err = ParsePortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePortRangeError(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self {
            first: first.parse().map_err(|_| error())?,
            last: last.parse().map_err(|_| error())?,
        };
        if range.first > range.last {
            return Err(error());
        }
        Ok(range)
    }
}

deserialize_from_str!(PortRange);

/// The text is no [`PortRange`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "`{0}` is neither a port nor a range of ports; \
     write a number from 1 to 65535, or two such as 8000-8099"
)]
pub struct ParsePortRangeError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_its_ends() {
        let range: PortRange = "8000-8099".parse().expect("a range");
        assert!(range.contains(8000) && range.contains(8099));
        assert!(!range.contains(7999) && !range.contains(8100));
        let one: PortRange = "8080".parse().expect("a port");
        assert!(one.contains(8080) && !one.contains(8081));
        assert_eq!(
            (range.to_string(), one.to_string()),
            ("8000-8099".into(), "8080".into())
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "0", "http", "80-", "-80", "90-80", "80-65536", "1-2-3"] {
            assert_eq!(
                text.parse::<PortRange>().expect_err(text).to_string(),
                format!(
                    "`{text}` is neither a port nor a range of ports; \
                     write a number from 1 to 65535, or two such as 8000-8099"
                )
            );
        }
    }
}
