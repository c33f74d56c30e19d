use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Access, Conditions, RuleName, Verdict,
    conditions::{ConditionsError, Segment, TrustDomainName},
};
use crate::policy::{Cidr, IdentityPattern, PortRange};

/// What a rule does with connections that it fits. In the order in which rules are asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuses them, whatever other rules say.
    Deny,
    /// Lets them in.
    Allow,
    /// Counts and logs them, and decides nothing.
    Audit,
}

impl Action {
    /// The word in files, logs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Audit => "audit",
        }
    }
}

impl Action {
    /// What it decides, if it decides anything.
    pub(super) const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Deny => Some(Verdict::Deny),
            Self::Allow => Some(Verdict::Allow),
            Self::Audit => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What happens to some connections from the network.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Document")]
pub struct Rule {
    /// Unique among the rules of a policy.
    pub(super) name: RuleName,
    /// What is done with the connections that it fits.
    pub(super) action: Action,
    /// Which these are.
    pub(super) conditions: Conditions,
}

impl Rule {
    /// Is this one of the connections that the rule is about?
    pub(super) fn fits(&self, access: &Access<'_>) -> bool {
        self.conditions.mismatch(access).is_none()
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    name: RuleName,
    action: Action,
    identities: Option<Vec<IdentityPattern>>,
    trust_domains: Option<Vec<TrustDomainName>>,
    namespaces: Option<Vec<Segment>>,
    service_accounts: Option<Vec<Segment>>,
    unauthenticated: Option<bool>,
    cidrs: Option<Vec<Cidr>>,
    ports: Option<Vec<PortRange>>,
}

impl TryFrom<Document> for Rule {
    type Error = RuleError;

    fn try_from(document: Document) -> Result<Self, RuleError> {
        let Document {
            name,
            action,
            identities,
            trust_domains,
            namespaces,
            service_accounts,
            unauthenticated,
            cidrs,
            ports,
        } = document;
        let conditions = Conditions {
            identities,
            trust_domains,
            namespaces,
            service_accounts,
            unauthenticated,
            cidrs,
            ports,
        };
        match conditions.check() {
            Ok(()) => Ok(Self {
                name,
                action,
                conditions,
            }),
            Err(mistake) => Err(RuleError { name, mistake }),
        }
    }
}

/// A rule that nobody can mean.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the rule `{name}` {mistake}")]
pub struct RuleError {
    /// Which rule.
    name: RuleName,
    /// What is wrong with it.
    mistake: ConditionsError,
}
