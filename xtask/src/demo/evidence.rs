//! A claim about the sidecar and what was observed of it.

/// One row of the demo's table.
pub struct Evidence {
    /// What should be so, in a few words.
    pub claim: &'static str,
    /// What was seen, in lines.
    pub seen: String,
    /// Whether what was seen bears the claim out.
    pub holds: bool,
}

impl Evidence {
    /// The claim that all of `observations` hold; each is a line to show and its verdict.
    pub fn all(
        claim: &'static str,
        observations: impl IntoIterator<Item = (String, bool)>,
    ) -> Self {
        let (lines, verdicts): (Vec<_>, Vec<_>) = observations.into_iter().unzip();
        Self {
            claim,
            seen: lines.join("\n"),
            holds: !verdicts.is_empty() && verdicts.iter().all(|holds| *holds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_only_if_every_observation_does() {
        let claim = |verdicts: &[bool]| {
            Evidence::all("…", verdicts.iter().map(|holds| (String::new(), *holds))).holds
        };

        assert!(claim(&[true, true]));
        assert!(!claim(&[true, false]));
        assert!(!claim(&[]));
    }
}
