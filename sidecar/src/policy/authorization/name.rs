use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

use crate::policy::text::deserialize_from_str;

/// The name of a rule, in logs and metrics. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// Stands where no rule has decided. No rule can have it.
    const DEFAULT: &'static str = "default";
    /// A label of metrics, and a word in a line of the log.
    const LONGEST: usize = 63;

    /// What is named where no rule has decided.
    pub fn of_default() -> Self {
        Self(Self::DEFAULT.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RuleName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text == Self::DEFAULT {
            return Err(ParseNameError::Reserved);
        }
        if text.is_empty() || text.len() > Self::LONGEST || !text.chars().all(is_word) {
            return Err(ParseNameError::Syntax(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

deserialize_from_str!(RuleName);

/// The text names no rule.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParseNameError {
    /// The name of what decides where no rule does.
    #[error("`default` stands for what no rule decides; give the rule another name")]
    Reserved,
    /// Too long, or of other characters.
    #[error("`{0}` is no name of a rule; write 1 to 63 letters, digits, `-`, `_` or `.`")]
    Syntax(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_short_word() {
        for text in ["a", "shop-may-pay", "no_guests.v2", &"x".repeat(63)] {
            assert_eq!(text.parse::<RuleName>().expect(text).as_str(), text);
        }
        for text in ["", "two words", "a\"b", "a=b", "é", &"x".repeat(64)] {
            assert_eq!(
                text.parse::<RuleName>().expect_err(text).to_string(),
                format!(
                    "`{text}` is no name of a rule; write 1 to 63 letters, digits, `-`, `_` or `.`"
                )
            );
        }
        assert_eq!("default".parse::<RuleName>(), Err(ParseNameError::Reserved));
    }
}
