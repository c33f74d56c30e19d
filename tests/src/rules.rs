//! What a sidecar of another design would have added to.

use crate::{Program, Sandbox};

/// All packet filter and routing rules of a network namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules(Vec<String>);

impl Rules {
    /// The rules as they are now.
    #[track_caller]
    pub fn of(sandbox: &Sandbox) -> Self {
        let commands = [
            ["/usr/sbin/nft", "list", "ruleset"].as_slice(),
            &["/usr/sbin/iptables-save"],
            &["/usr/sbin/ip6tables-save"],
            &["/usr/sbin/ip", "-4", "rule"],
            &["/usr/sbin/ip", "-6", "rule"],
        ];
        let lines = |command: &[&str]| {
            let output = Program::new(sandbox, command[0])
                .args(&command[1..])
                .succeed();
            // iptables-save dates what it prints, even nothing.
            let lasting = output.lines().filter(|line| !line.starts_with('#'));
            lasting.map(str::to_owned).collect::<Vec<_>>()
        };
        Self(commands.into_iter().flat_map(lines).collect())
    }
}
