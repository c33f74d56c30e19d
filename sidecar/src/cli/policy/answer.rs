use std::fmt::Write as _;

use serde::Serialize;

use crate::policy::{
    Mode, Policy,
    authorization::{Access, Action, Explanation, Step, Verdict},
};

/// What becomes of a client, and why.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    /// Whether it is let in.
    verdict: Verdict,
    /// What says so.
    by: By,
    /// The mode of such connections.
    mode: Mode,
    /// What the authorization says, where it is asked.
    authorization: Option<Explanation<'a>>,
}

/// What decides, in the order in which it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum By {
    /// The port is excluded: the kernel leaves the connection alone.
    Exclusion,
    /// The mode: `off` leaves it alone, `strict` refuses plaintext.
    Mode,
    /// A rule, or the default.
    Authorization,
    /// Nothing is said about who may reach the workload.
    Nothing,
}

impl<'a> Answer<'a> {
    pub(super) fn new(policy: &'a Policy, access: &Access<'_>) -> Self {
        let mode = policy.inbound.mode(access.port, access.source);
        let decided = |by, verdict| Self {
            verdict,
            by,
            mode,
            authorization: None,
        };
        if policy.exclusions.inbound_ports.contains(&access.port) {
            return decided(By::Exclusion, Verdict::Allow);
        }
        match (mode, access.peer) {
            (Mode::Off, _) => return decided(By::Mode, Verdict::Allow),
            (Mode::Strict, None) => return decided(By::Mode, Verdict::Deny),
            _ => {}
        }
        match &policy.authorization {
            None => decided(By::Nothing, Verdict::Allow),
            Some(authorization) => {
                let explanation = authorization.explain(access);
                Self {
                    authorization: Some(explanation),
                    ..decided(By::Authorization, authorization.decide(access).verdict)
                }
            }
        }
    }

    pub(super) fn is_let_in(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// The answer in a sentence, and what every rule says.
    pub(super) fn text(&self, access: &Access<'_>) -> String {
        let who = access
            .peer
            .map_or_else(|| "a client in plaintext".to_owned(), ToString::to_string);
        let verdict = match self.verdict {
            Verdict::Allow => "may reach",
            Verdict::Deny => "may not reach",
        };
        let why = match (self.by, &self.authorization) {
            (By::Exclusion, _) => "the port is excluded, so nobody asks".to_owned(),
            (By::Mode, _) if self.is_let_in() => "the mode is off, so nobody asks".to_owned(),
            (By::Mode, _) => "the mode is strict".to_owned(),
            (_, None) => "no authorization is set".to_owned(),
            (_, Some(explanation)) => reason(explanation),
        };
        let mut text = format!("{who} {verdict} port {}: {why}\n", access.port);
        if let Some(explanation) = &self.authorization {
            table(&mut text, explanation);
        }
        text
    }
}

fn reason(explanation: &Explanation<'_>) -> String {
    let Explanation {
        rule,
        steps,
        default,
        default_is_stated,
        ..
    } = explanation;
    if is_decisive(explanation).is_some() {
        return format!("the rule `{rule}` says so");
    }
    let allows = steps.iter().any(|step| step.action == Action::Allow);
    let because = match (default_is_stated, allows) {
        (true, _) => format!("`default` is {default}"),
        (false, true) => {
            "what no rule allows is denied, as long as `default` is not set".to_owned()
        }
        (false, false) => {
            "nothing is denied but by a rule, as long as `default` is not set".to_owned()
        }
    };
    format!("no rule decides, and {because}")
}

/// The rule that decides, if one does.
fn is_decisive<'a>(explanation: &'a Explanation<'_>) -> Option<&'a Step<'a>> {
    let mut steps = explanation.steps.iter();
    steps.find(|step| step.rule == explanation.rule.as_str())
}

/// Every rule in the order in which they are asked.
fn table(text: &mut String, explanation: &Explanation<'_>) {
    let decisive = is_decisive(explanation).map(|step| step.rule);
    let names = explanation.steps.iter().map(|step| step.rule.len());
    let width = names.max().unwrap_or(0);
    for step in &explanation.steps {
        let outcome = match step.mismatch {
            Some(key) => format!("does not fit: {key}"),
            None if decisive == Some(step.rule) => "fits, and decides".to_owned(),
            None if step.action == Action::Audit => "fits, and is counted".to_owned(),
            None => "fits, but comes later".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:<5}  {:<width$}  {outcome}",
            step.action, step.rule
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};

    const WEB: &str = "spiffe://example.org/ns/shop/sa/web";

    fn policy(yaml: &str) -> Policy {
        let settings: Settings = serde_saphyr::from_str(yaml).expect(yaml);
        Config::try_from(settings).expect(yaml).policy
    }

    /// The answer about a client of the shop, or one in plaintext.
    fn text(yaml: &str, peer: Option<&str>, port: u16) -> String {
        let peer = peer.map(|text| text.parse().expect(text));
        let access = Access {
            peer: peer.as_ref(),
            source: [198, 18, 0, 1].into(),
            port,
        };
        Answer::new(&policy(yaml), &access).text(&access)
    }

    #[test]
    fn the_rule_that_decides_is_named_and_every_other_with_why_it_does_not() {
        let yaml = "authorization:\n\
                    \x20 rules:\n\
                    \x20   - {name: shop, action: allow, namespaces: [shop], ports: [80]}\n\
                    \x20   - {name: no-guests, action: deny, unauthenticated: true}\n\
                    \x20   - {name: members, action: allow, trust-domains: [example.org]}\n\
                    \x20   - {name: look, action: audit, unauthenticated: false}\n";
        assert_eq!(
            text(yaml, Some(WEB), 80),
            "spiffe://example.org/ns/shop/sa/web may reach port 80: the rule `shop` says so\n\
             \x20 deny   no-guests  does not fit: unauthenticated\n\
             \x20 allow  shop       fits, and decides\n\
             \x20 allow  members    fits, but comes later\n\
             \x20 audit  look       fits, and is counted\n"
        );
        assert_eq!(
            text(yaml, None, 80),
            "a client in plaintext may not reach port 80: the rule `no-guests` says so\n\
             \x20 deny   no-guests  fits, and decides\n\
             \x20 allow  shop       does not fit: namespaces\n\
             \x20 allow  members    does not fit: trust-domains\n\
             \x20 audit  look       does not fit: unauthenticated\n"
        );
        let other = "spiffe://other.org/x";
        assert!(text(yaml, Some(other), 81).starts_with(
            "spiffe://other.org/x may not reach port 81: no rule decides, and \
             what no rule allows is denied, as long as `default` is not set\n"
        ));
    }

    #[test]
    fn the_guide_shows_what_is_said() {
        let guide = include_str!("../../../../docs/policy.md");
        let block = |kind: &str, holds: &str| {
            let mut blocks = guide
                .split("```")
                .filter_map(|block| block.strip_prefix(kind));
            blocks.find(|block| block.contains(holds)).expect(holds)
        };
        let yaml = block("yaml\n", "authorization:");
        let (_, shown) = block("console\n", "policy explain")
            .split_once('\n')
            .expect("an answer");
        let web: spiffe::SpiffeId = "spiffe://example.org/ns/cart/sa/web"
            .parse()
            .expect("an ID");
        let access = Access {
            peer: Some(&web),
            source: [10, 2, 0, 1].into(),
            port: 8080,
        };
        assert_eq!(Answer::new(&policy(yaml), &access).text(&access), shown);
        // What else is shown can be carried out.
        policy(block("yaml\n", "expect:"));
    }

    #[test]
    fn what_is_asked_before_any_rule_is_said() {
        let deny = "authorization: {default: deny}";
        for (yaml, peer, why) in [
            ("{}", None, "may reach port 80: no authorization is set"),
            (
                deny,
                Some(WEB),
                "may not reach port 80: no rule decides, and `default` is deny",
            ),
            (
                &format!("exclude-inbound-ports: [80]\n{deny}"),
                None,
                "may reach port 80: the port is excluded, so nobody asks",
            ),
            (
                &format!("inbound: off\n{deny}"),
                Some(WEB),
                "may reach port 80: the mode is off, so nobody asks",
            ),
            (
                "inbound: strict",
                None,
                "may not reach port 80: the mode is strict",
            ),
            (
                "inbound: strict",
                Some(WEB),
                "may reach port 80: no authorization is set",
            ),
            (
                "authorization: {rules: [{name: a, action: deny, ports: [81]}]}",
                None,
                "may reach port 80: no rule decides, and nothing is denied but by a rule, \
                 as long as `default` is not set\n  deny   a  does not fit: ports",
            ),
        ] {
            let answer = text(yaml, peer, 80);
            assert!(answer.trim_end().ends_with(why), "{yaml}: {answer}");
        }
    }
}
