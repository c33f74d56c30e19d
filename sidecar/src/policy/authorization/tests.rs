use spiffe::SpiffeId;

use super::*;

fn authorization(yaml: &str) -> Authorization {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(yaml: &str) -> String {
    let error = serde_saphyr::from_str::<Authorization>(yaml).expect_err(yaml);
    match error.without_snippet() {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        other => panic!("{other}"),
    }
}

/// Workloads that rules may confuse, and a client in plaintext.
fn peers() -> Vec<Option<SpiffeId>> {
    let mut peers: Vec<_> = [
        "spiffe://example.org/ns/shop/sa/web",
        "spiffe://example.org/ns/shop/sa/cart",
        "spiffe://example.org/ns/shopping/sa/web",
        "spiffe://example.org/ns/shop/sa/web/more",
        "spiffe://other.org/ns/shop/sa/web",
        "spiffe://example.org/legacy",
    ]
    .into_iter()
    .map(|text| Some(text.parse().expect(text)))
    .collect();
    peers.push(None);
    peers
}

/// The numbers in [`peers`] of those that fit, from one place, to one port.
fn fitting(conditions: &str, source: &str, port: u16) -> Vec<usize> {
    let policy = authorization(&format!(
        "{{default: deny, rules: [{{name: it, action: allow, {conditions}}}]}}"
    ));
    let fits = |peer: Option<&SpiffeId>| {
        let access = Access {
            peer,
            source: source.parse().expect(source),
            port,
        };
        policy.decide(&access).verdict == Verdict::Allow
    };
    let peers = peers();
    (0..peers.len())
        .filter(|number| fits(peers[*number].as_ref()))
        .collect()
}

#[test]
fn each_condition_fits_what_it_names() {
    let none: [usize; 0] = [];
    for (conditions, fit) in [
        (
            "identities: ['spiffe://example.org/ns/shop/sa/web']",
            &[0][..],
        ),
        ("identities: ['spiffe://example.org/ns/shop/*']", &[0, 1, 3]),
        ("identities: ['spiffe://example.org/*']", &[0, 1, 2, 3, 5]),
        (
            "identities: ['spiffe://other.org/*', 'spiffe://example.org/legacy']",
            &[4, 5],
        ),
        ("trust-domains: [example.org]", &[0, 1, 2, 3, 5]),
        ("trust-domains: [other.org, third.org]", &[4]),
        // Only paths of the whole common form have names in them.
        ("namespaces: [shop]", &[0, 1, 4]),
        ("service-accounts: [web]", &[0, 2, 4]),
        ("unauthenticated: true", &[6]),
        ("unauthenticated: false", &[0, 1, 2, 3, 4, 5]),
        ("cidrs: [198.18.0.0/15]", &[0, 1, 2, 3, 4, 5, 6]),
        ("cidrs: [10.0.0.0/8, 198.18.0.1]", &[0, 1, 2, 3, 4, 5, 6]),
        ("cidrs: [198.18.0.2, '::/0']", &none),
        ("ports: [80, 8080]", &[0, 1, 2, 3, 4, 5, 6]),
        ("ports: [8000-8099]", &[0, 1, 2, 3, 4, 5, 6]),
        ("ports: [8081-8099]", &none),
    ] {
        assert_eq!(fitting(conditions, "198.18.0.1", 8080), fit, "{conditions}");
        assert_eq!(
            fitting(conditions, "::ffff:198.18.0.1", 8080),
            fit,
            "{conditions}"
        );
    }
}

#[test]
fn every_condition_of_a_rule_has_to_fit() {
    let all = "trust-domains: [example.org], namespaces: [shop], service-accounts: [web, cart], \
               cidrs: [198.18.0.0/15], ports: [8080]";
    let none: [usize; 0] = [];
    assert_eq!(fitting(all, "198.18.0.1", 8080), [0, 1]);
    assert_eq!(fitting(all, "198.20.0.1", 8080), none);
    assert_eq!(fitting(all, "198.18.0.1", 8081), none);
    assert_eq!(
        fitting("unauthenticated: true, ports: [80]", "198.18.0.1", 80),
        [6]
    );
}

/// Verdict and rule for web of the shop, on port 80.
fn decided(yaml: &str) -> (Verdict, String, Vec<String>) {
    let web = peers().swap_remove(0);
    let Decision {
        verdict,
        rule,
        audits,
    } = authorization(yaml).decide(&Access {
        peer: web.as_ref(),
        source: [198, 18, 0, 1].into(),
        port: 80,
    });
    let audits = audits.iter().map(ToString::to_string).collect();
    (verdict, rule.to_string(), audits)
}

#[test]
fn deny_is_asked_before_allow_wherever_it_stands() {
    let allow = "{name: yes, action: allow, ports: [80]}";
    let deny = "{name: no, action: deny, namespaces: [shop]}";
    for rules in [[allow, deny], [deny, allow]] {
        let yaml = format!("rules: [{}]", rules.join(", "));
        assert_eq!(decided(&yaml), (Verdict::Deny, "no".into(), vec![]));
    }
}

#[test]
fn of_rules_alike_the_first_one_is_named() {
    let yaml = "rules: [{name: one, action: allow, ports: [80]}, {name: two, action: allow, ports: [1-99]}]";
    assert_eq!(decided(yaml), (Verdict::Allow, "one".into(), vec![]));
}

#[test]
fn without_a_stated_default_allow_rules_mean_that_nothing_else_is_allowed() {
    let default = |verdict| (verdict, "default".to_owned(), vec![]);
    let other = "action: allow, ports: [81]";
    for (yaml, verdict) in [
        ("{}", Verdict::Allow),
        (
            "rules: [{name: a, action: deny, ports: [81]}]",
            Verdict::Allow,
        ),
        (
            "rules: [{name: a, action: audit, ports: [81]}]",
            Verdict::Allow,
        ),
        (&format!("rules: [{{name: a, {other}}}]"), Verdict::Deny),
        (
            &format!("{{default: allow, rules: [{{name: a, {other}}}]}}"),
            Verdict::Allow,
        ),
        ("default: deny", Verdict::Deny),
    ] {
        assert_eq!(decided(yaml), default(verdict), "{yaml}");
    }
}

#[test]
fn audit_is_told_and_decides_nothing() {
    let audits = "{name: a, action: audit, ports: [80]}, {name: b, action: audit, ports: [81]}, \
                  {name: c, action: audit, unauthenticated: false}";
    let told = vec!["a".to_owned(), "c".to_owned()];
    for (rest, verdict, rule) in [
        ("", Verdict::Allow, "default"),
        (", {name: d, action: deny, ports: [80]}", Verdict::Deny, "d"),
        (
            ", {name: d, action: allow, ports: [80]}",
            Verdict::Allow,
            "d",
        ),
    ] {
        let yaml = format!("rules: [{audits}{rest}]");
        assert_eq!(
            decided(&yaml),
            (verdict, rule.to_owned(), told.clone()),
            "{yaml}"
        );
    }
}

#[test]
fn rules_that_nobody_can_mean_are_refused() {
    for (rules, sentence) in [
        (
            "[{name: a, action: deny}]",
            "the rule `a` has no condition and would fit every connection; \
             add one, or set `default` instead",
        ),
        (
            "[{name: a, action: allow, ports: []}]",
            "the rule `a` can never fit: its `ports` are none; name one, or leave `ports` out",
        ),
        (
            "[{name: a, action: allow, unauthenticated: true, namespaces: [shop]}]",
            "the rule `a` can never fit: with `unauthenticated: true` there is no peer for \
             `namespaces`; make it two rules",
        ),
        (
            "[{name: a, action: deny, ports: [80]}, {name: a, action: allow, ports: [81]}]",
            "two rules are called `a`; give each a name of its own",
        ),
        (
            "[{name: default, action: deny, ports: [80]}]",
            "`default` stands for what no rule decides; give the rule another name",
        ),
        (
            "[{name: a, action: deny, trust-domains: ['spiffe://example.org/x']}]",
            "`spiffe://example.org/x` is not a trust domain; write a name such as example.org",
        ),
        (
            "[{name: a, action: deny, namespaces: ['shop/*']}]",
            "`shop/*` is not a name in a SPIFFE ID; write letters, digits, `-`, `_` or `.`",
        ),
    ] {
        assert_eq!(refusal(&format!("rules: {rules}")), sentence);
    }
}

/// Every policy of up to three of these rules, with every default, asked about every peer.
#[test]
fn an_explanation_agrees_with_the_decision() {
    const RULES: [&str; 8] = [
        "action: deny, namespaces: [shop]",
        "action: deny, unauthenticated: true",
        "action: deny, ports: [81]",
        "action: allow, identities: ['spiffe://example.org/*']",
        "action: allow, service-accounts: [web], ports: [80]",
        "action: allow, cidrs: [198.18.0.0/15]",
        "action: audit, trust-domains: [other.org]",
        "action: audit, ports: [80]",
    ];
    let count = RULES.len();
    for choice in 0..count.pow(3) {
        let rules: Vec<_> = [
            choice % count,
            choice / count % count,
            choice / count.pow(2),
        ]
        .iter()
        .enumerate()
        .map(|(number, rule)| format!("{{name: rule-{number}, {}}}", RULES[*rule]))
        .collect();
        for default in ["", "default: allow, ", "default: deny, "] {
            let policy = authorization(&format!("{{{default}rules: [{}]}}", rules.join(", ")));
            for peer in &peers() {
                for (source, port) in [([198, 18, 0, 1], 80), ([10, 0, 0, 1], 81)] {
                    let access = Access {
                        peer: peer.as_ref(),
                        source: source.into(),
                        port,
                    };
                    let decision = policy.decide(&access);
                    let explanation = policy.explain(&access);
                    // By what the steps say alone: the first that denies, else the first that allows.
                    let first = |action| {
                        let mut steps = explanation.steps.iter();
                        steps.find(|step| step.action == action && step.mismatch.is_none())
                    };
                    let (verdict, rule) = match (first(Action::Deny), first(Action::Allow)) {
                        (Some(step), _) => (Verdict::Deny, step.rule),
                        (None, Some(step)) => (Verdict::Allow, step.rule),
                        (None, None) => (explanation.default, "default"),
                    };
                    assert_eq!((decision.verdict, decision.rule.as_str()), (verdict, rule));
                    assert_eq!(
                        (explanation.verdict, &explanation.rule),
                        (verdict, &decision.rule)
                    );
                }
            }
        }
    }
}
