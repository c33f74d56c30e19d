use serde::Serialize;

use super::{Access, Action, Authorization, RuleName, Verdict};

/// How a decision comes about, rule by rule.
#[derive(Debug, Serialize)]
pub struct Explanation<'a> {
    /// What is decided.
    pub verdict: Verdict,
    /// The rule that decides, or the name of the default.
    #[serde(serialize_with = "as_text")]
    pub rule: RuleName,
    /// Every rule, in the order in which they are asked.
    pub steps: Vec<Step<'a>>,
    /// What would be decided where no rule fits.
    pub default: Verdict,
    /// Whether the default was stated; else it follows from there being rules that allow.
    pub default_is_stated: bool,
}

/// One rule's part in a decision.
#[derive(Debug, Serialize)]
pub struct Step<'a> {
    /// The rule.
    pub rule: &'a str,
    /// What it does.
    pub action: Action,
    /// The key of its first condition that does not fit; `None`: the rule fits.
    pub mismatch: Option<&'static str>,
}

impl Authorization {
    /// Decides as [`decide`](Self::decide) does, and says how.
    pub fn explain(&self, access: &Access<'_>) -> Explanation<'_> {
        let decision = self.decide(access);
        let steps = self.rules.iter().map(|rule| Step {
            rule: rule.name.as_str(),
            action: rule.action,
            mismatch: rule.conditions.mismatch(access),
        });
        Explanation {
            verdict: decision.verdict,
            rule: decision.rule,
            steps: steps.collect(),
            default: self.default,
            default_is_stated: self.default_is_stated,
        }
    }
}

fn as_text<S: serde::Serializer>(name: &RuleName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
