//! What the kernel says of the processes of both sidecars, or of a peer on both sides.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sidecar_tests::{Pod, cgroup::Container};

/// Memory of a process, in bytes (`/proc/<pid>/status` of proc(5)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What it shares with nobody: heap and stacks.
    pub own: u64,
    /// The same and what it has touched of the program's files, which others that run them share.
    pub resident: u64,
}

/// What all processes of a pod's sidecar, or of its peer, hold together.
pub fn memory(pod: &Pod) -> Memory {
    let mut memory = Memory::default();
    for pid in pids(pod) {
        // One that has ended since holds nothing.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        memory.own += field(&status, "RssAnon:") * 1024;
        memory.resident += field(&status, "VmRSS:") * 1024;
    }
    memory
}

/// What `perf` counts.
pub struct Counts {
    /// System calls.
    pub calls: u64,
    /// How often a thread gave up its processor, or had it taken away.
    pub switches: u64,
}

/// What they do while `work` is done; counting slows them down.
pub fn count<T>(pods: [&Pod; 2], work: impl FnOnce() -> T) -> anyhow::Result<(T, Counts)> {
    const EVENTS: [&str; 2] = ["raw_syscalls:sys_enter", "context-switches"];
    let numbers = pods.into_iter().flat_map(pids);
    let numbers: Vec<_> = numbers.map(|pid| pid.to_string()).collect();
    let perf = Command::new("/usr/bin/perf")
        .args(["stat", "--field-separator", ","])
        .args(["--event", &EVENTS.join(",")])
        .args(["--pid", &numbers.join(",")])
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start perf")?;
    let result = work();
    let pid = Pid::from_raw(perf.id().cast_signed());
    kill(pid, Signal::SIGINT).context("cannot stop perf")?;
    let output = perf.wait_with_output().context("cannot wait for perf")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = |event| {
        counted(&said, event).with_context(|| format!("perf counts no {event}: {}", said.trim()))
    };
    let [calls, switches] = EVENTS.map(count);
    Ok((
        result,
        Counts {
            calls: calls?,
            switches: switches?,
        },
    ))
}

/// The number in front of an event's name, as `perf stat` writes it for programs.
fn counted(said: &str, event: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains(event))?;
    line.split(',').next()?.parse().ok()
}

/// The processor time that both pods' processes have taken until now, the kernel's included.
pub fn processor_time(pods: [&Pod; 2]) -> Duration {
    pods.map(processor_time_of).into_iter().sum()
}

fn processor_time_of(pod: &Pod) -> Duration {
    let statistics = fs::read_to_string(cgroup(pod).join("cpu.stat"));
    let statistics = statistics.expect("every cgroup has this file");
    Duration::from_micros(field(&statistics, "usage_usec"))
}

pub fn pids(pod: &Pod) -> Vec<u32> {
    let pids = fs::read_to_string(cgroup(pod).join("cgroup.procs")).unwrap_or_default();
    pids.lines().filter_map(|pid| pid.parse().ok()).collect()
}

fn cgroup(pod: &Pod) -> PathBuf {
    let cgroup = pod.sandbox().cgroup().path();
    cgroup.join(Container::Sidecar.name())
}

/// The number behind a name at the beginning of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_that_of_the_whole_name() {
        let text = "VmRSS:\t  42 kB\nRssAnon:\t   7 kB\n";
        assert_eq!(field(text, "RssAnon:"), 7);
        assert_eq!(field(text, "VmRSS:"), 42);
        assert_eq!(field(text, "VmSwap:"), 0);
    }

    #[test]
    fn what_perf_could_not_count_is_nothing() {
        let said =
            "41,,raw_syscalls:sys_enter,9,100.00,,\n<not supported>,,context-switches,0,100.00,,\n";
        assert_eq!(counted(said, "raw_syscalls:sys_enter"), Some(41));
        assert_eq!(counted(said, "context-switches"), None);
    }
}
