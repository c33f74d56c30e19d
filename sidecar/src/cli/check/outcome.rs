/// What came of looking at a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It does not hold, and the sidecar cannot run, or cannot keep what it promises.
    Fail {
        /// Why it does not hold.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// It holds.
    Pass {
        /// What was found, where that is worth knowing.
        found: Option<String>,
    },
    /// It was not looked at, because something before it failed.
    Skip {
        /// What failed.
        reason: &'static str,
    },
    /// It does not hold, but the sidecar can run.
    Warn {
        /// Why it does not hold, and what that means.
        reason: String,
        /// What to do.
        hint: String,
    },
}

impl Outcome {
    /// Nothing could be looked at without settings.
    pub(super) const NO_SETTINGS: Self = Self::Skip {
        reason: "the settings are not valid",
    };

    /// The claim holds.
    pub(super) const PASS: Self = Self::Pass { found: None };

    /// The claim holds; `found` says on what grounds.
    pub(super) fn found(found: impl Into<String>) -> Self {
        Self::Pass {
            found: Some(found.into()),
        }
    }

    /// The claim does not hold, and that is an obstacle.
    pub(super) fn fail(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fail {
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// An error stands in the way. Errors of ours end in what to do, after the last semicolon.
    pub(super) fn error(error: &dyn std::error::Error) -> Self {
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((reason, hint)) => Self::fail(reason, hint),
            None => Self::fail(text, "see the documentation of the setting it names"),
        }
    }

    /// The claim does not hold, and that is worth knowing.
    pub(super) fn warn(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Warn {
            reason: reason.into(),
            hint: hint.into(),
        }
    }

    /// The sign in front of the claim.
    pub(super) const fn sign(&self) -> char {
        match self {
            Self::Fail { .. } => '×',
            Self::Pass { .. } => '√',
            Self::Skip { .. } => '–',
            Self::Warn { .. } => '‼',
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_end_of_an_error_is_its_hint() {
        let error = io::Error::other("cannot open a; b; check c");
        assert_eq!(
            Outcome::error(&error),
            Outcome::fail("cannot open a; b", "check c")
        );
    }
}
