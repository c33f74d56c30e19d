//! `sidecar check`: what the sidecar needs of this machine, as claims that hold or do not.
//!
//! Each claim is a sentence in plain words, so that the output teaches also where all is well. A
//! claim that fails says why, and what to do. Nothing is attached, and nothing is changed.

mod admin;
mod beside;
mod cgroup;
mod context;
#[cfg(test)]
mod fixture;
mod identity;
mod kernel;
mod kubernetes;
mod network;
mod outcome;
mod pins;
mod privileges;
mod report;

use std::{io, process::ExitCode};

use self::{
    context::Context,
    kubernetes::Cluster,
    outcome::Outcome,
    report::{Finding, Report},
};
use super::output::Output;
use crate::config;

/// Options of `sidecar check`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// How to print the findings
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Check a cluster instead of this machine: the one that the kubeconfig leads to
    #[arg(long)]
    kubernetes: bool,

    /// With --kubernetes: a namespace that is to have pods with sidecars of their own
    #[arg(short, long, value_name = "NAME", requires = "kubernetes")]
    namespace: Vec<String>,

    #[command(flatten)]
    config: config::Args,
}

impl Check {
    /// Checks every claim and prints the findings. The exit code is 0 unless a claim fails; what
    /// is only worth knowing does not count.
    ///
    /// Call it before any other thread exists, and end the process after it: it enters the pod's
    /// network namespace.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let report = if self.kubernetes {
            let cluster = Cluster::ask(&self.namespace)?;
            Report::new(
                kubernetes::CLAIMS
                    .iter()
                    .map(|claim| claim.finding(&cluster)),
            )
        } else {
            let context = Context::new(self.config);
            Report::new(CLAIMS.iter().map(|claim| claim.finding(&context)))
        };
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => report.write_json(&mut out)?,
            Output::Text => report.write_text(&mut out)?,
        }
        Ok(report.exit_code())
    }
}

/// Something that should be true of the machine, or of whatever else is looked at.
struct Claim<T = Context> {
    /// The heading it stands under.
    category: &'static str,
    /// The claim, in plain words.
    text: &'static str,
    /// Finds out whether it holds.
    check: fn(&T) -> Outcome,
}

impl<T> Claim<T> {
    fn finding(&self, context: &T) -> Finding {
        Finding {
            category: self.category,
            claim: self.text,
            outcome: (self.check)(context),
        }
    }
}

/// Every claim, in the order in which they are printed.
const CLAIMS: &[Claim] = &[
    Claim {
        category: "settings",
        text: "the settings are valid",
        check: Context::settings,
    },
    Claim {
        category: "kernel",
        text: "the kernel is 5.10 or newer",
        check: kernel::floor,
    },
    Claim {
        category: "kernel",
        text: "the kernel lets a proxy without capabilities use its maps",
        check: kernel::unprivileged_proxy,
    },
    Claim {
        category: "kernel",
        text: "bpf() is kept from unprivileged users",
        check: kernel::unprivileged_bpf,
    },
    Claim {
        category: "kernel",
        text: "the kernel can confine the proxy",
        check: kernel::sandbox,
    },
    Claim {
        category: "privileges",
        text: "the sidecar is not confined to a user namespace",
        check: privileges::user_namespace,
    },
    Claim {
        category: "privileges",
        text: "CAP_BPF is held",
        check: privileges::bpf,
    },
    Claim {
        category: "privileges",
        text: "CAP_NET_ADMIN is held",
        check: privileges::net_admin,
    },
    Claim {
        category: "privileges",
        text: "CAP_SYS_ADMIN is held where it is needed",
        check: privileges::sys_admin,
    },
    Claim {
        category: "privileges",
        text: "the limit of open files leaves room for 10,000 connections",
        check: privileges::open_files,
    },
    Claim {
        category: "programs",
        text: "this binary carries its kernel side",
        check: kernel::side,
    },
    Claim {
        category: "programs",
        text: "programs for connect() and getpeername() can be loaded",
        check: kernel::sock_addr,
    },
    Claim {
        category: "programs",
        text: "programs that follow sockets can be loaded",
        check: kernel::sock_ops,
    },
    Claim {
        category: "programs",
        text: "programs that choose a listener can be loaded",
        check: kernel::sk_lookup,
    },
    Claim {
        category: "programs",
        text: "programs that see what leaves the pod can be loaded",
        check: kernel::cgroup_skb,
    },
    Claim {
        category: "programs",
        text: "the kernel takes the whole kernel side",
        check: kernel::whole_side,
    },
    Claim {
        category: "pod",
        text: "cgroup v2 is mounted",
        check: cgroup::mounted,
    },
    Claim {
        category: "pod",
        text: "cgroup v1 does not hide sockets from cgroup v2",
        check: cgroup::hybrid,
    },
    Claim {
        category: "pod",
        text: "the pod's cgroup can be opened",
        check: cgroup::usable,
    },
    Claim {
        category: "pod",
        text: "the sidecar runs inside the pod's cgroup",
        check: cgroup::holds_us,
    },
    Claim {
        category: "pod",
        text: "the pod's network namespace can be entered",
        check: network::namespace,
    },
    Claim {
        category: "pins",
        text: "a BPF file system is mounted",
        check: pins::file_system,
    },
    Claim {
        category: "pins",
        text: "no dead sidecar keeps a pod closed",
        check: pins::left_over,
    },
    Claim {
        category: "pins",
        text: "no other sidecar serves the pod",
        check: pins::rival,
    },
    Claim {
        category: "beside",
        text: "no other program changes what the pod connects to",
        check: beside::translation,
    },
    Claim {
        category: "beside",
        text: "no other program follows the pod's sockets",
        check: beside::following,
    },
    Claim {
        category: "beside",
        text: "no other program chooses the pod's listeners",
        check: beside::steering,
    },
    Claim {
        category: "beside",
        text: "no other program drops what leaves the pod",
        check: beside::filtering,
    },
    Claim {
        category: "network",
        text: "loopback carries connections",
        check: network::loopback,
    },
    Claim {
        category: "network",
        text: "loopback carries IPv6 where the pod has it",
        check: network::loopback6,
    },
    Claim {
        category: "network",
        text: "local ports are enough for 10,000 connections to one destination",
        check: network::local_ports,
    },
    Claim {
        category: "network",
        text: "the network cannot reach loopback addresses",
        check: network::route_localnet,
    },
    Claim {
        category: "network",
        text: "SYN cookies are not forced",
        check: network::syn_cookies,
    },
    Claim {
        category: "network",
        text: "the admin address is free",
        check: admin::free,
    },
    Claim {
        category: "identity",
        text: "the identity can be loaded",
        check: identity::loadable,
    },
    Claim {
        category: "identity",
        text: "the identity is not about to expire",
        check: identity::lasting,
    },
    Claim {
        category: "identity",
        text: "bundles and revocation lists can be read",
        check: identity::trust_readable,
    },
    Claim {
        category: "identity",
        text: "the identity is fit for production",
        check: identity::fit_for_production,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_is_explained_under_its_own_heading() {
        let guide = include_str!("../../../docs/check.md");
        let headings = |prefix| {
            guide
                .lines()
                .filter_map(move |line| line.strip_prefix(prefix))
        };
        let explained: Vec<_> = headings("### ").collect();
        let of_machine = CLAIMS.iter().map(|claim| (claim.category, claim.text));
        let of_cluster = kubernetes::CLAIMS.iter();
        let of_cluster = of_cluster.map(|claim| (claim.category, claim.text));
        let claims: Vec<_> = of_machine.chain(of_cluster).collect();
        let claimed: Vec<_> = claims.iter().map(|(_, text)| *text).collect();
        assert_eq!(explained, claimed);

        let mut categories: Vec<_> = claims.iter().map(|(category, _)| *category).collect();
        categories.dedup();
        assert_eq!(headings("## ").collect::<Vec<_>>(), categories);
    }
}
