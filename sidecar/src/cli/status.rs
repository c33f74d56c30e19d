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
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {}", place(pod), state(pod));
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
        for path in &pod.other {
            let _ = writeln!(text, "  unknown {}", path.display());
        }
    }
    text
}

fn place(status: &PodStatus) -> String {
    let PodStatus { cgroup, pod, .. } = status;
    match (pod, cgroup) {
        (Some(pod), 0) => format!("pod {pod}, whose cgroup has gone"),
        (Some(pod), cgroup) => format!("pod {pod}, cgroup {cgroup}"),
        (None, cgroup) => format!("cgroup {cgroup}"),
    }
}

/// What happens to connections of a pod that nobody serves.
const UNSERVED: &str = "connections are refused, or pass where a failure setting says open";

fn state(pod: &PodStatus) -> String {
    let Some(abi) = pod.abi else {
        return "pinned by another version, or half-finished".into();
    };
    let kept = if pod.kept { ", kept by init" } else { "" };
    let state = match pod.pid {
        Some(pid) if pod.alive => format!("sidecar {pid} is running"),
        Some(pid) => format!("sidecar {pid} is not running: {UNSERVED}"),
        None => format!("no sidecar has run yet: {UNSERVED}"),
    };
    format!("{state} (layout {abi}{kept})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::status::{Count, Link, MapStatus};

    /// What is pinned for a pod that this process has served.
    fn served_by(pid: Option<u32>) -> PodStatus {
        PodStatus {
            cgroup: 42,
            pod: None,
            abi: Some(1),
            pid,
            alive: false,
            kept: false,
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
            other: Vec::new(),
        }
    }

    #[test]
    fn a_dead_sidecar_is_said_to_refuse() {
        assert_eq!(
            text(&[served_by(Some(7))]),
            "cgroup 42: sidecar 7 is not running: connections are refused, or pass where a failure setting says open (layout 1)\n\
             \x20 program sc_connect4      id 3      link 4\n\
             \x20 map     SC_EVENTS        id 5\n\
             \x20 counted dropped_no_listener      6\n"
        );
        assert_eq!(text(&[]), "nothing of ours is attached\n");
    }

    #[test]
    fn a_pod_is_named_by_its_uid() {
        let named = |cgroup| PodStatus {
            cgroup,
            pod: Some("1f-2e".into()),
            ..served_by(None)
        };
        assert_eq!(place(&named(42)), "pod 1f-2e, cgroup 42");
        assert_eq!(place(&named(0)), "pod 1f-2e, whose cgroup has gone");
    }

    #[test]
    fn a_pod_that_nobody_has_served_is_said_to_refuse() {
        let pod = PodStatus {
            kept: true,
            ..served_by(None)
        };
        assert_eq!(
            state(&pod),
            "no sidecar has run yet: connections are refused, or pass where a failure setting says open (layout 1, kept by init)"
        );
    }

    #[test]
    fn what_another_version_has_pinned_is_shown() {
        let pod = PodStatus {
            abi: None,
            other: vec!["/sys/fs/bpf/sidecar/42/4711".into()],
            ..served_by(None)
        };
        let text = text(&[pod]);
        assert!(text.contains("another version"), "{text}");
        assert!(text.contains("/sys/fs/bpf/sidecar/42/4711"), "{text}");
    }
}
