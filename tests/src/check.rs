//! What `sidecar check` says.

use serde::Deserialize;

use crate::Program;

/// Its claims, and what was found.
#[derive(Debug, Deserialize)]
pub struct Check {
    /// Whether nothing stands in the way.
    pub success: bool,
    checks: Vec<Claimed>,
}

#[derive(Debug, Deserialize)]
struct Claimed {
    claim: String,
    result: String,
    found: Option<String>,
    reason: Option<String>,
    hint: Option<String>,
}

impl Check {
    /// Runs it by a command line to which nothing but the format is to be added, and holds its exit code to what it says.
    #[track_caller]
    pub fn of(command: Program<'_>) -> Self {
        let output = command.args(["-o", "json"]).run();
        let check: Self = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output}"));
        assert_eq!(output.status.success(), check.success, "{output}");
        check
    }

    /// Checks that the claim holds, and that what was found has these words in it.
    #[track_caller]
    pub fn assert_found(&self, claim: &str, words: &str) {
        self.assert(claim, "pass", &[words]);
    }

    /// Checks that the claim does not hold, that it is no obstacle, and that it says so in these words.
    #[track_caller]
    pub fn assert_warns(&self, claim: &str, words: &str) {
        self.assert(claim, "warn", &[words]);
    }

    /// Checks that the claim is an obstacle, and that reason and hint have each of these words in them.
    #[track_caller]
    pub fn assert_fails(&self, claim: &str, words: &[&str]) {
        self.assert(claim, "fail", words);
        assert!(!self.success, "{self:#?}");
    }

    #[track_caller]
    fn assert(&self, claim: &str, result: &str, words: &[&str]) {
        let found = self.checks.iter().find(|found| found.claim == claim);
        let found = found.unwrap_or_else(|| panic!("{claim:?} is not claimed: {self:#?}"));
        let parts = [&found.found, &found.reason, &found.hint];
        let text: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
        let text = text.join("; ");
        assert_eq!(found.result, result, "{claim}: {text}");
        for words in words {
            assert!(
                text.contains(words),
                "{words:?} is not said of {claim:?}: {text}"
            );
        }
    }
}
