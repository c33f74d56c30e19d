use std::fmt::Write as _;

use super::{bpffs::BpfFs, output::Output};
use crate::bpf::status::{self, PodStatus};

/// Options of `sidecar status`.
#[derive(clap::Args, Debug)]
pub struct Status {
    #[command(flatten)]
    bpffs: BpfFs,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

impl Status {
    /// Prints what is pinned.
    pub fn run(self) -> anyhow::Result<()> {
        let pods = status::status(&self.bpffs.path)?;
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&pods)?),
            Output::Text => print!("{}", text(&pods)),
        }
        Ok(())
    }
}

fn text(pods: &[PodStatus]) -> String {
    if pods.is_empty() {
        return "nothing of ours is attached\n".into();
    }
    let mut text = String::new();
    for pod in pods {
        let state = if pod.alive {
            "running"
        } else {
            "not running: connections are refused, or pass where a failure setting says open"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "cgroup {}: sidecar {} is {state}",
            pod.cgroup, pod.pid
        );
        for link in &pod.links {
            let _ = writeln!(
                text,
                "  program {:<16} id {:<6} link {}",
                link.program, link.program_id, link.link_id
            );
        }
        for map in &pod.maps {
            let _ = writeln!(text, "  map     {:<16} id {}", map.name, map.id);
        }
        for count in &pod.events {
            let _ = writeln!(text, "  counted {:<24} {}", count.event, count.count);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::status::{Count, Link, MapStatus};

    #[test]
    fn a_dead_sidecar_is_said_to_refuse() {
        let pod = PodStatus {
            cgroup: 42,
            pid: 7,
            alive: false,
            links: vec![Link {
                program: "sc_connect4".into(),
                program_id: 3,
                link_id: 4,
            }],
            maps: vec![MapStatus {
                name: "SC_EVENTS".into(),
                id: 5,
            }],
            events: vec![Count {
                event: "dropped_no_listener",
                count: 6,
            }],
        };
        assert_eq!(
            text(&[pod]),
            "cgroup 42: sidecar 7 is not running: connections are refused, or pass where a failure setting says open\n\
             \x20 program sc_connect4      id 3      link 4\n\
             \x20 map     SC_EVENTS        id 5\n\
             \x20 counted dropped_no_listener      6\n"
        );
        assert_eq!(text(&[]), "nothing of ours is attached\n");
    }
}
