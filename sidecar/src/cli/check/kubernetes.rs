//! What a cluster has to have. Its nodes are looked at as far as the API describes them.

use std::fmt::Display;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Builder;

use super::{Claim, Outcome};
use crate::{
    bpf::probe::Release,
    kubernetes::preflight::{Cilium, NamespaceFacts, NodeFacts, Preflight, Said, Version},
};

/// Native sidecars, which are init containers that go on, are on by default since then.
const NATIVE_SIDECARS: (u32, u32) = (1, 29);
/// The first kernel with everything the kernel side uses.
const KERNEL: Release = Release(5, 10);
/// How far clocks may be apart before certificates suffer: those that are made are valid from a minute
/// before.
const SKEW: SignedDuration = SignedDuration::from_secs(30);
/// After this time without a sign of life, Kubernetes takes a node for dead.
const SILENCE: SignedDuration = SignedDuration::from_secs(40);
/// How long the webhook's authority should last.
const AHEAD: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What is asked is about whoever the kubeconfig says we are.
const ASK_AS_ANOTHER: &str = "ask as somebody who may read it, such as an administrator";

/// A cluster, or why it cannot be reached.
pub(super) struct Cluster(Result<Preflight, String>);

impl Cluster {
    /// Asks the cluster, once.
    pub(super) fn ask(namespaces: &[String]) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start")?;
        Ok(Self(runtime.block_on(Preflight::ask(namespaces))))
    }

    /// What `check` says of what was asked, if that was answered.
    fn said<'a, T: 'a>(
        &'a self,
        what: impl FnOnce(&'a Preflight) -> &'a Said<T>,
        check: impl FnOnce(&'a T) -> Outcome,
    ) -> Outcome {
        match self.0.as_ref().map(what) {
            Err(_) => UNREACHED,
            Ok(Ok(said)) => check(said),
            Ok(Err(error)) => Outcome::warn(format!("nobody knows: {error}"), ASK_AS_ANOTHER),
        }
    }
}

const UNREACHED: Outcome = Outcome::Skip {
    reason: "the API could not be reached",
};

/// Every claim, in the order in which they are printed.
pub(super) const CLAIMS: &[Claim<Cluster>] = &[
    Claim {
        category: "cluster",
        text: "the Kubernetes API can be reached",
        check: reached,
    },
    Claim {
        category: "cluster",
        text: "Kubernetes is 1.29 or newer",
        check: version,
    },
    Claim {
        category: "cluster",
        text: "our clock is that of the API server",
        check: clock,
    },
    Claim {
        category: "nodes",
        text: "every kubelet runs native sidecars",
        check: kubelets,
    },
    Claim {
        category: "nodes",
        text: "every node has a kernel of 5.10 or newer",
        check: kernels,
    },
    Claim {
        category: "nodes",
        text: "every node is of a kind that the image is for",
        check: architectures,
    },
    Claim {
        category: "nodes",
        text: "every node has the time of the API server",
        check: heartbeats,
    },
    Claim {
        category: "nodes",
        text: "no other program translates what pods connect to",
        check: cilium,
    },
    Claim {
        category: "nodes",
        text: "every node has a BPF file system and cgroup v2",
        check: file_systems,
    },
    Claim {
        category: "namespaces",
        text: "`sidecar init` is admitted where pods have sidecars of their own",
        check: admitted,
    },
    Claim {
        category: "agent",
        text: "the agent of nodes is admitted in its namespace",
        check: agent_admitted,
    },
    Claim {
        category: "agent",
        text: "the agent of nodes may ask what it needs to know",
        check: rights,
    },
    Claim {
        category: "agent",
        text: "the agent of nodes is ready on every node",
        check: agent_ready,
    },
    Claim {
        category: "webhook",
        text: "the API server trusts the webhook",
        check: webhook,
    },
];

fn reached(cluster: &Cluster) -> Outcome {
    match &cluster.0 {
        Ok(preflight) => Outcome::found(&preflight.server),
        Err(error) => Outcome::fail(
            format!("it cannot be asked: {error}"),
            "see that `kubectl version` works here; KUBECONFIG names another kubeconfig",
        ),
    }
}

fn version(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.version,
        |version| {
            if version.number >= NATIVE_SIDECARS {
                Outcome::found(&version.text)
            } else {
                Outcome::fail(
                    format!(
                        "this is {}, in which init containers cannot be sidecars",
                        version.text
                    ),
                    "use the agent of nodes, for pods labelled sidecar.mesh/inject: node; or upgrade",
                )
            }
        },
    )
}

fn clock(cluster: &Cluster) -> Outcome {
    let Ok(preflight) = &cluster.0 else {
        return UNREACHED;
    };
    let Some(ahead) = preflight.ahead else {
        return Outcome::warn(
            "nobody knows: it does not tell the time",
            "see that what is between leaves the Date header alone",
        );
    };
    if ahead.abs() <= SKEW {
        return Outcome::PASS;
    }
    Outcome::warn(
        format!("it is {} of ours", apart(ahead)),
        "synchronise the clocks: certificates begin and end by them",
    )
}

fn kubelets(cluster: &Cluster) -> Outcome {
    let is_old = |node: &&NodeFacts| {
        Version::parse(&node.kubelet).is_none_or(|version| version.number < NATIVE_SIDECARS)
    };
    on_nodes(
        cluster,
        is_old,
        |node| &node.kubelet,
        |old| {
            Outcome::fail(
                format!(
                    "{old} is older than 1.29: there, the sidecar would have to end before the app begins"
                ),
                "upgrade these nodes, or keep pods with sidecars of their own off them",
            )
        },
    )
}

fn kernels(cluster: &Cluster) -> Outcome {
    let older = |than: Release| {
        move |node: &&NodeFacts| Release::parse(&node.kernel).is_none_or(|release| release < than)
    };
    let too_old = on_nodes(
        cluster,
        older(KERNEL),
        |node| &node.kernel,
        |old| {
            Outcome::fail(
                format!("{old} lacks what the kernel side uses"),
                "boot a newer kernel there, or keep pods with sidecars off these nodes",
            )
        },
    );
    if !matches!(too_old, Outcome::Pass { .. }) {
        return too_old;
    }
    on_nodes(
        cluster,
        older(Release::UNPRIVILEGED),
        |node| &node.kernel,
        |old| {
            Outcome::warn(
                format!(
                    "{old} is older than 5.19: a sidecar without capabilities cannot use its maps"
                ),
                "use the agent on these nodes, or set kernel.unprivileged_bpf_disabled=0 there",
            )
        },
    )
}

fn architectures(cluster: &Cluster) -> Outcome {
    let is_other = |node: &&NodeFacts| !["amd64", "arm64"].contains(&&*node.architecture);
    let other = on_nodes(
        cluster,
        is_other,
        |node| &node.architecture,
        |other| {
            Outcome::fail(
                format!("{other} is nothing that the kernel side was built for"),
                "keep pods with sidecars off these nodes",
            )
        },
    );
    if !matches!(other, Outcome::Pass { .. }) {
        return other;
    }
    let is_untried = |node: &&NodeFacts| node.architecture != "amd64";
    on_nodes(
        cluster,
        is_untried,
        |node| &node.architecture,
        |untried| {
            Outcome::warn(
                format!("{untried} has been tried in emulated machines alone"),
                "build the image for it, and try it there first",
            )
        },
    )
}

fn heartbeats(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.heartbeats,
        |beats| {
            // By the node's own clock: ahead of the time, it is the clock; behind it, who knows.
            let ahead = beats.iter().find(|(_, ahead)| *ahead > SKEW);
            let silent = beats.iter().find(|(_, ahead)| *ahead < -SILENCE);
            if let Some((node, ahead)) = ahead {
                return Outcome::warn(
                    format!("the clock of {node} is {} of the API server's", apart(*ahead)),
                    "synchronise the clocks: certificates begin and end by them",
                );
            }
            if let Some((node, behind)) = silent {
                return Outcome::warn(
                    format!(
                        "the last sign of life of {node} is {} of the API server's time: it is dead, or its clock is behind",
                        apart(*behind)
                    ),
                    "see `kubectl get nodes`; if it is ready, synchronise its clock",
                );
            }
            Outcome::found(counted(beats.len(), "node"))
        },
    )
}

fn cilium(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.cilium,
        |cilium| match cilium {
            None => Outcome::found("Cilium is not there"),
            Some(Cilium::PerPacket) => Outcome::found("Cilium does so per packet"),
            Some(Cilium::OfHost) => Outcome::found("Cilium does so for the host only"),
            Some(Cilium::OfPods) => Outcome::warn(
                "Cilium replaces addresses of services in connect() of pods, too: the sidecar's programs come first, which has been tried with programs that do the same, and not with Cilium",
                "set bpf-lb-sock-hostns-only to true (socketLB.hostNamespaceOnly of its chart)",
            ),
        },
    )
}

fn file_systems(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.agent,
        |agent| match agent {
            Some(agent) if agent.wanted > 0 && agent.ready >= agent.wanted => {
                Outcome::found("the agent is ready on each, and could not be without")
            }
            _ => Outcome::warn(
                "the API does not tell, and no agent is ready on each that could",
                "on each node: kubectl debug node/NODE -it --image=busybox -- grep -wE 'bpf|cgroup2' /host/proc/1/mounts",
            ),
        },
    )
}

fn admitted(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.namespaces,
        |namespaces| {
            if namespaces.is_empty() {
                return Outcome::found("no pod asks for one; --namespace names where some will be");
            }
            for namespace in namespaces {
                if let Some(outcome) = obstacle(
                    namespace,
                    "let the agent of nodes take these pods (sidecar.mesh/inject: node), which asks for nothing there; or label the namespace pod-security.kubernetes.io/enforce=privileged",
                ) {
                    return outcome;
                }
            }
            Outcome::found(counted(namespaces.len(), "namespace"))
        },
    )
}

fn agent_admitted(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.agent,
        |agent| match agent {
            None => no_agent(),
            Some(agent) => obstacle(
                &agent.namespace,
                "label it pod-security.kubernetes.io/enforce=privileged, and let nothing else live there",
            )
            .unwrap_or_else(|| Outcome::found(&agent.namespace.name)),
        },
    )
}

/// Why containers with capabilities are refused in a namespace.
fn obstacle(namespace: &NamespaceFacts, hint: &str) -> Option<Outcome> {
    let name = &namespace.name;
    if !namespace.exists {
        let reason = format!("there is no namespace {name}");
        return Some(Outcome::fail(
            reason,
            "make it, or name another with --namespace",
        ));
    }
    match namespace.enforced.as_deref() {
        // Without a label it is what the API server was told, which is privileged if it was told
        // nothing.
        None | Some("privileged") => None,
        Some(level) => Some(Outcome::fail(
            format!(
                "namespace {name} enforces the Pod Security Standard {level}, which forbids CAP_BPF, CAP_NET_ADMIN and volumes of the host"
            ),
            hint,
        )),
    }
}

fn rights(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.rights,
        |rights| {
            let Some(first) = rights.missing.first() else {
                return Outcome::found(&rights.who);
            };
            let more = match rights.missing.len() - 1 {
                0 => String::new(),
                more => format!(", nor {more} more of what it needs"),
            };
            Outcome::fail(
                format!("{} may not {first}{more}", rights.who),
                "apply the ClusterRole and the ClusterRoleBinding of deploy/kustomize/base/node",
            )
        },
    )
}

fn agent_ready(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.agent,
        |agent| match agent {
            None => no_agent(),
            Some(agent) if agent.ready >= agent.wanted => {
                Outcome::found(format!("on {} of {}", agent.ready, agent.wanted))
            }
            Some(agent) => Outcome::fail(
                format!(
                    "it is ready on {} of {} nodes; new pods of the others wait, or are not captured",
                    agent.ready, agent.wanted
                ),
                format!(
                    "kubectl -n {} get pods -o wide, and the logs of those that are not ready",
                    agent.namespace.name
                ),
            ),
        },
    )
}

fn webhook(cluster: &Cluster) -> Outcome {
    cluster.said(
        |said| &said.webhooks,
        |webhooks| {
            let now = Timestamp::now();
            for webhook in webhooks {
                let name = &webhook.name;
                let renew = "put the authority of its certificate into caBundle, or have cert-manager do so";
                let until = match webhook.ca {
                    Err(flaw) => {
                        return Outcome::fail(format!("the caBundle of {name} {flaw}"), renew);
                    }
                    Ok(until) if until <= now => {
                        let reason = format!("an authority of {name} expired at {until:.0}");
                        return Outcome::fail(reason, renew);
                    }
                    Ok(until) => until,
                };
                if until.duration_since(now) < AHEAD {
                    let reason = format!("an authority of {name} expires at {until:.0}");
                    return Outcome::warn(reason, renew);
                }
                if webhook.ignores_failure {
                    return Outcome::warn(
                        format!("with failurePolicy Ignore, {name} lets pods start without the sidecar they ask for while it is away"),
                        "set failurePolicy to Fail, unless availability is worth more",
                    );
                }
            }
            match webhooks.len() {
                0 => Outcome::found("there is none; `sidecar inject` changes manifests instead"),
                count => Outcome::found(counted(count, "webhook")),
            }
        },
    )
}

fn no_agent() -> Outcome {
    Outcome::found("none is installed")
}

/// Looks at each node that runs Linux: pods with sidecars run on no other. `bad` makes the outcome out
/// of the first that is `wrong`, and how many more there are.
fn on_nodes(
    cluster: &Cluster,
    wrong: impl Fn(&&NodeFacts) -> bool,
    what: impl Fn(&NodeFacts) -> &str,
    bad: impl FnOnce(String) -> Outcome,
) -> Outcome {
    cluster.said(
        |said| &said.nodes,
        |nodes| {
            let linux: Vec<_> = nodes.iter().filter(|node| node.system == "linux").collect();
            let found: Vec<_> = linux.iter().copied().filter(|node| wrong(node)).collect();
            let Some(first) = found.first() else {
                return Outcome::found(counted(linux.len(), "node"));
            };
            let more = match found.len() - 1 {
                0 => String::new(),
                more => format!(" (as on {more} more)"),
            };
            bad(format!("{} of {}{more}", what(first), first.name))
        },
    )
}

fn counted(count: usize, what: impl Display) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// `3m 2s ahead`, or behind.
fn apart(ahead: SignedDuration) -> String {
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead"
    };
    let seconds = SignedDuration::from_secs(ahead.abs().as_secs());
    format!("{seconds:#} {side}")
}

#[cfg(test)]
mod tests;
