use std::{fmt, str::FromStr};

use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;

use super::text::deserialize_from_str;

/// Which workloads are meant, by their SPIFFE ID.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentityPattern {
    /// All whose path goes on below this one: `spiffe://example.org/ns/shop/*`. It ends at a whole
    /// segment, so `/ns/shopping` is not meant.
    Below(SpiffeId),
    /// This one: `spiffe://example.org/ns/shop/sa/web`.
    Exact(SpiffeId),
    /// All of a trust domain: `spiffe://example.org/*`.
    Member(TrustDomain),
}

impl IdentityPattern {
    /// Is this workload meant? The identity must have been verified.
    pub fn fits(&self, identity: &SpiffeId) -> bool {
        match self {
            Self::Below(above) => {
                identity.trust_domain() == above.trust_domain()
                    && identity
                        .path()
                        .strip_prefix(above.path())
                        .is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Exact(exact) => identity == exact,
            Self::Member(trust_domain) => identity.is_member_of(trust_domain),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(above) => write!(f, "{above}/*"),
            Self::Exact(exact) => exact.fmt(f),
            Self::Member(trust_domain) => write!(f, "spiffe://{trust_domain}/*"),
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        let id: SpiffeId = id
            .parse()
            .map_err(|_| ParsePatternError::Syntax(text.to_owned()))?;
        match (id.path().is_empty(), below) {
            (true, true) => Ok(Self::Member(id.trust_domain().clone())),
            (true, false) => Err(ParsePatternError::TrustDomain(id)),
            (false, true) => Ok(Self::Below(id)),
            (false, false) => Ok(Self::Exact(id)),
        }
    }
}

deserialize_from_str!(IdentityPattern);

/// The text is no [`IdentityPattern`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParsePatternError {
    /// Neither an identity nor the beginning of some.
    #[error(
        "`{0}` names no identities; write one such as spiffe://example.org/ns/shop/sa/web, \
         or spiffe://example.org/ns/shop/* for all below"
    )]
    Syntax(String),
    /// The name of a trust domain, which is no workload.
    #[error("`{0}` is a trust domain and no workload; write `{0}/*` for all of its workloads")]
    TrustDomain(SpiffeId),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, identity: &str) -> bool {
        let pattern: IdentityPattern = pattern.parse().expect(pattern);
        pattern.fits(&identity.parse().expect(identity))
    }

    #[test]
    fn a_pattern_is_read_as_it_is_written() {
        for text in [
            "spiffe://example.org/ns/shop/sa/web",
            "spiffe://example.org/ns/shop/*",
            "spiffe://example.org/*",
        ] {
            let pattern: IdentityPattern = text.parse().expect(text);
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn an_exact_pattern_means_one_workload() {
        let web = "spiffe://example.org/ns/shop/sa/web";
        assert!(fits(web, web));
        for other in [
            "spiffe://example.org/ns/shop/sa/web2",
            "spiffe://example.org/ns/shop/sa/web/1",
            "spiffe://example.org/ns/shop/sa",
            "spiffe://example.org/ns/shop/sa/Web",
            "spiffe://example.com/ns/shop/sa/web",
        ] {
            assert!(!fits(web, other), "{other}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_whole_segment() {
        let shop = "spiffe://example.org/ns/shop/*";
        assert!(fits(shop, "spiffe://example.org/ns/shop/sa/web"));
        assert!(fits(shop, "spiffe://example.org/ns/shop/x"));
        for other in [
            "spiffe://example.org/ns/shop",
            "spiffe://example.org/ns/shopping/sa/web",
            "spiffe://example.org/x/ns/shop/sa/web",
            "spiffe://example.org.evil.com/ns/shop/sa/web",
            "spiffe://evil.com/ns/shop/sa/web",
        ] {
            assert!(!fits(shop, other), "{other}");
        }
    }

    #[test]
    fn a_trust_domain_means_its_own_workloads_alone() {
        assert!(fits("spiffe://example.org/*", "spiffe://example.org/web"));
        assert!(fits("spiffe://Example.org/*", "spiffe://example.ORG/web"));
        for other in [
            "spiffe://sub.example.org/web",
            "spiffe://example.org.evil.com/web",
            "spiffe://evil.com/example.org/web",
        ] {
            assert!(!fits("spiffe://example.org/*", other), "{other}");
        }
    }

    #[test]
    fn what_names_no_workloads_is_refused_with_a_way_out() {
        for text in [
            "",
            "*",
            "web",
            "spiffe://*",
            "spiffe:///*",
            "spiffe://*/ns/shop/*",
            "spiffe://example.org/ns/*/sa/web",
            "spiffe://example.org/ns/shop*",
            "spiffe://example.org/ns/shop/",
            "spiffe://example.org//*",
            "spiffe://example.org/ns/../*",
            "spiffe://example.org/a%2fb",
            "https://example.org/web",
        ] {
            assert_eq!(
                text.parse::<IdentityPattern>().expect_err(text).to_string(),
                format!(
                    "`{text}` names no identities; \
                     write one such as spiffe://example.org/ns/shop/sa/web, \
                     or spiffe://example.org/ns/shop/* for all below"
                )
            );
        }
        let error = "spiffe://example.org".parse::<IdentityPattern>();
        assert_eq!(
            error.expect_err("no workload").to_string(),
            "`spiffe://example.org` is a trust domain and no workload; \
             write `spiffe://example.org/*` for all of its workloads"
        );
    }
}
