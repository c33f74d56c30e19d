use super::*;
use crate::kubernetes::preflight::{AgentFacts, Rights, WebhookFacts};

fn namespace(enforced: Option<&str>) -> NamespaceFacts {
    NamespaceFacts {
        name: "shop".to_owned(),
        enforced: enforced.map(ToOwned::to_owned),
        exists: true,
    }
}

fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        kernel: "6.1.0-28-amd64".to_owned(),
        kubelet: "v1.33.1".to_owned(),
        architecture: "amd64".to_owned(),
        system: "linux".to_owned(),
    }
}

fn agent() -> AgentFacts {
    AgentFacts {
        namespace: namespace(Some("privileged")),
        name: "sidecar-node".to_owned(),
        service_account: "sidecar-node".to_owned(),
        wanted: 2,
        ready: 2,
    }
}

/// A cluster in which every claim holds.
fn sound() -> Preflight {
    Preflight {
        server: "https://198.18.0.1:6443/".to_owned(),
        version: Ok(Version::parse("v1.33.1").expect("a version")),
        ahead: Some(SignedDuration::from_secs(1)),
        nodes: Ok(vec![node("one"), node("two")]),
        heartbeats: Ok(vec![("one".to_owned(), SignedDuration::from_secs(-9))]),
        namespaces: Ok(vec![namespace(None)]),
        cilium: Ok(None),
        agent: Ok(Some(agent())),
        rights: Ok(Rights {
            who: "service account sidecar-node/sidecar-node".to_owned(),
            missing: Vec::new(),
        }),
        webhooks: Ok(vec![WebhookFacts {
            name: "sidecar-webhook".to_owned(),
            ca: Ok(Timestamp::now() + AHEAD + AHEAD),
            ignores_failure: false,
        }]),
    }
}

/// The signs of all claims about a cluster that is sound but for this.
fn signs(spoil: impl FnOnce(&mut Preflight)) -> String {
    let mut preflight = sound();
    spoil(&mut preflight);
    let cluster = Cluster(Ok(preflight));
    let outcomes = CLAIMS.iter().map(|claim| (claim.check)(&cluster));
    outcomes.map(|outcome| outcome.sign()).collect()
}

/// The claim that is no longer held by a cluster that is sound but for this, its sign and why.
#[track_caller]
fn broken(spoil: impl FnOnce(&mut Preflight)) -> (&'static str, char, String) {
    let mut preflight = sound();
    spoil(&mut preflight);
    let cluster = Cluster(Ok(preflight));
    let mut broken = CLAIMS.iter().filter_map(|claim| {
        let outcome = (claim.check)(&cluster);
        match &outcome {
            Outcome::Fail { reason, .. } | Outcome::Warn { reason, .. } => {
                Some((claim.text, outcome.sign(), reason.clone()))
            }
            _ => None,
        }
    });
    let first = broken.next().expect("a claim that does not hold");
    assert_eq!(broken.next(), None, "one claim for each fault");
    first
}

#[test]
fn a_sound_cluster_holds_every_claim() {
    assert_eq!(signs(|_| {}), "√".repeat(CLAIMS.len()));
}

#[test]
fn without_the_api_nothing_else_is_looked_at() {
    let cluster = Cluster(Err("connection refused".to_owned()));
    let outcomes = CLAIMS.iter().map(|claim| (claim.check)(&cluster));
    let signs: String = outcomes.map(|outcome| outcome.sign()).collect();
    assert_eq!(signs, format!("×{}", "–".repeat(CLAIMS.len() - 1)));
}

#[test]
fn what_may_not_be_read_is_said_and_is_no_obstacle() {
    let error = || Err("nodes is forbidden: user guest".to_owned());
    let signs = signs(|cluster| {
        cluster.nodes = error();
        cluster.cilium = Err("configmaps is forbidden".to_owned());
        cluster.webhooks = Err("forbidden".to_owned());
    });
    assert_eq!(signs, "√√√‼‼‼√‼√√√√√‼");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of all faults")]
fn each_fault_breaks_its_own_claim() {
    type Spoil = fn(&mut Preflight);
    fn first(cluster: &mut Preflight) -> &mut NodeFacts {
        cluster
            .nodes
            .as_mut()
            .expect("nodes")
            .first_mut()
            .expect("a node")
    }
    fn agent(cluster: &mut Preflight) -> &mut AgentFacts {
        let agent = cluster.agent.as_mut().expect("an answer");
        agent.as_mut().expect("an agent")
    }
    fn webhook(cluster: &mut Preflight) -> &mut WebhookFacts {
        let webhooks = cluster.webhooks.as_mut().expect("webhooks");
        webhooks.first_mut().expect("a webhook")
    }
    let cases: [(Spoil, &str, char, &str); 18] = [
        (
            |c| c.version = Ok(Version::parse("v1.28.9+k3s1").expect("a version")),
            "Kubernetes is 1.29 or newer",
            '×',
            "this is v1.28.9+k3s1",
        ),
        (
            |c| c.ahead = Some(SignedDuration::from_secs(-95)),
            "our clock is that of the API server",
            '‼',
            "1m 35s behind of ours",
        ),
        (
            |c| c.ahead = None,
            "our clock is that of the API server",
            '‼',
            "does not tell the time",
        ),
        (
            |c| first(c).kubelet = "v1.28.15".to_owned(),
            "every kubelet runs native sidecars",
            '×',
            "v1.28.15 of one is older",
        ),
        (
            |c| first(c).kernel = "5.4.0-200-generic".to_owned(),
            "every node has a kernel of 5.10 or newer",
            '×',
            "5.4.0-200-generic of one lacks",
        ),
        (
            |c| first(c).kernel = "5.15.0-100-generic".to_owned(),
            "every node has a kernel of 5.10 or newer",
            '‼',
            "older than 5.19",
        ),
        (
            |c| first(c).architecture = "s390x".to_owned(),
            "every node is of a kind that the image is for",
            '×',
            "s390x of one",
        ),
        (
            |c| first(c).architecture = "arm64".to_owned(),
            "every node is of a kind that the image is for",
            '‼',
            "has been tried in emulated machines alone",
        ),
        (
            |c| c.heartbeats = Ok(vec![("two".to_owned(), SignedDuration::from_secs(60))]),
            "every node has the time of the API server",
            '‼',
            "the clock of two is 1m ahead",
        ),
        (
            |c| c.heartbeats = Ok(vec![("two".to_owned(), SignedDuration::from_secs(-60))]),
            "every node has the time of the API server",
            '‼',
            "it is dead, or its clock is behind",
        ),
        (
            |c| {
                c.cilium = Ok(Some(Cilium::OfPods));
            },
            "no other program translates what pods connect to",
            '‼',
            "not with Cilium",
        ),
        (
            |c| c.namespaces = Ok(vec![namespace(None), namespace(Some("baseline"))]),
            "`sidecar init` is admitted where pods have sidecars of their own",
            '×',
            "enforces the Pod Security Standard baseline",
        ),
        (
            |c| {
                c.namespaces = Ok(vec![NamespaceFacts {
                    exists: false,
                    ..namespace(None)
                }]);
            },
            "`sidecar init` is admitted where pods have sidecars of their own",
            '×',
            "there is no namespace shop",
        ),
        (
            |c| agent(c).namespace = namespace(Some("restricted")),
            "the agent of nodes is admitted in its namespace",
            '×',
            "Standard restricted",
        ),
        (
            |c| {
                c.rights = Ok(Rights {
                    who: "service account a/b".to_owned(),
                    missing: vec!["list pods".to_owned(), "watch pods".to_owned()],
                });
            },
            "the agent of nodes may ask what it needs to know",
            '×',
            "service account a/b may not list pods, nor 1 more",
        ),
        (
            |c| webhook(c).ca = Err("has no authority"),
            "the API server trusts the webhook",
            '×',
            "the caBundle of sidecar-webhook has no authority",
        ),
        (
            |c| webhook(c).ca = Ok(Timestamp::now() - AHEAD),
            "the API server trusts the webhook",
            '×',
            "expired at",
        ),
        (
            |c| webhook(c).ignores_failure = true,
            "the API server trusts the webhook",
            '‼',
            "lets pods start without",
        ),
    ];
    for (spoil, claim, sign, reason) in cases {
        let (found, found_sign, found_reason) = broken(spoil);
        assert_eq!((found, found_sign), (claim, sign), "{found_reason}");
        assert!(found_reason.contains(reason), "{found_reason}");
    }
}

#[test]
fn without_a_ready_agent_the_api_does_not_tell_of_file_systems() {
    let missing = signs(|cluster| cluster.agent = Ok(None));
    assert_eq!(missing, "√√√√√√√√‼√√√√√");
    let half = signs(|cluster| {
        cluster.agent = Ok(Some(AgentFacts {
            ready: 1,
            ..agent()
        }));
    });
    assert_eq!(half, "√√√√√√√√‼√√√×√");
}

#[test]
fn nodes_without_linux_are_left_out() {
    let windows = NodeFacts {
        kernel: "10.0.20348.2402".to_owned(),
        architecture: "amd64".to_owned(),
        system: "windows".to_owned(),
        kubelet: "v1.20.0".to_owned(),
        name: "w".to_owned(),
    };
    let signs = signs(|cluster| cluster.nodes = Ok(vec![node("one"), windows]));
    assert_eq!(signs, "√".repeat(CLAIMS.len()));
}

#[test]
fn cilium_that_leaves_pods_alone_is_fine() {
    for cilium in [Cilium::PerPacket, Cilium::OfHost] {
        let signs = signs(|cluster| cluster.cilium = Ok(Some(cilium)));
        assert_eq!(signs, "√".repeat(CLAIMS.len()));
    }
}
