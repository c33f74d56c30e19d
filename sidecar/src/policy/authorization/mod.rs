//! Who may reach the workload.
//!
//! Rules that deny are asked first, then those that allow; where none fits, the default decides.
//! Rules that audit decide nothing.

mod access;
mod conditions;
mod explanation;
mod name;
mod rule;
#[cfg(test)]
mod tests;
mod workload;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    access::Access,
    conditions::{Conditions, ConditionsError},
    explanation::{Explanation, Step},
    name::{ParseNameError, RuleName},
    rule::{Action, Rule, RuleError},
};

/// Who may reach the workload.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Document")]
pub struct Authorization {
    /// What is decided where no rule fits.
    default: Verdict,
    /// Whether the default was stated; else it follows from the rules.
    default_is_stated: bool,
    /// In the order in which they are asked.
    rules: Vec<Rule>,
}

/// Whether a connection is let in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

impl Verdict {
    /// The word in files, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was decided of one connection, and by which rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Whether it is let in.
    pub verdict: Verdict,
    /// The rule that says so, or the name of the default.
    pub rule: RuleName,
    /// Rules that asked to be told of such connections.
    pub audits: Vec<RuleName>,
}

impl Authorization {
    /// Rules in the order in which they are given, and a default: without one, whoever has written
    /// what to allow means nothing else to be.
    ///
    /// Refused: two rules of one name.
    pub fn new(default: Option<Verdict>, mut rules: Vec<Rule>) -> Result<Self, DuplicateRule> {
        let mut names = BTreeSet::new();
        if let Some(twice) = rules.iter().find(|rule| !names.insert(&rule.name)) {
            return Err(DuplicateRule(twice.name.clone()));
        }
        rules.sort_by_key(|rule| rule.action);
        let implied = if rules.iter().any(|rule| rule.action == Action::Allow) {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        Ok(Self {
            default: default.unwrap_or(implied),
            default_is_stated: default.is_some(),
            rules,
        })
    }

    /// Decides.
    pub fn decide(&self, access: &Access<'_>) -> Decision {
        let decisive = self.rules.iter().find_map(|rule| {
            let verdict = rule.action.verdict()?;
            rule.fits(access).then_some((verdict, &rule.name))
        });
        let audits = self.rules.iter();
        let audits = audits.filter(|rule| rule.action == Action::Audit && rule.fits(access));
        Decision {
            verdict: decisive.map_or(self.default, |(verdict, _)| verdict),
            rule: decisive.map_or_else(RuleName::of_default, |(_, name)| name.clone()),
            audits: audits.map(|rule| rule.name.clone()).collect(),
        }
    }

    /// A rule that asks where the client is, if there is one.
    pub fn asks_for_source(&self) -> Option<&RuleName> {
        let mut rules = self.rules.iter();
        rules
            .find(|rule| rule.conditions.ask_for_source())
            .map(|rule| &rule.name)
    }
}

/// Authorization as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    default: Option<Verdict>,
    #[serde(default)]
    rules: Vec<Rule>,
}

impl TryFrom<Document> for Authorization {
    type Error = DuplicateRule;

    fn try_from(document: Document) -> Result<Self, DuplicateRule> {
        Self::new(document.default, document.rules)
    }
}

/// Two rules have one name, so that no log could tell them apart.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("two rules are called `{0}`; give each a name of its own")]
pub struct DuplicateRule(RuleName);
