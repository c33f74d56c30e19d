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

/// What a load took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Processor time, the kernel's included.
    pub cpu: Duration,
    /// How often a thread gave up its processor, or had it taken away.
    pub switches: u64,
}

impl Cost {
    /// What both pods' processes have taken until now.
    pub fn of(pods: [&Pod; 2]) -> Self {
        let cpu = pods.map(processor_time).into_iter().sum();
        let switches = pods.map(switches).into_iter().sum();
        Self { cpu, switches }
    }

    /// What they have taken since.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// How much of the machine's memory a pod's processes hold, in bytes (`VmRSS` of proc(5)).
pub fn resident(pod: &Pod) -> u64 {
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&status, "VmRSS:") * 1024
    };
    pids(pod).into_iter().map(of).sum()
}

/// How many system calls they make while `work` is done, as `perf` counts them; that slows them down.
pub fn system_calls<T>(pods: [&Pod; 2], work: impl FnOnce() -> T) -> anyhow::Result<(T, u64)> {
    let numbers = pods.into_iter().flat_map(pids);
    let numbers: Vec<_> = numbers.map(|pid| pid.to_string()).collect();
    let perf = Command::new("/usr/bin/perf")
        .args([
            "stat",
            "--field-separator",
            ",",
            "--event",
            "raw_syscalls:sys_enter",
        ])
        .args(["--pid", &numbers.join(",")])
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start perf")?;
    let result = work();
    let pid = Pid::from_raw(perf.id().cast_signed());
    kill(pid, Signal::SIGINT).context("cannot stop perf")?;
    let output = perf.wait_with_output().context("cannot wait for perf")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| {
        let (count, _) = line.split_once(',')?;
        count.parse().ok()
    });
    let count = count.with_context(|| format!("perf counts no system calls: {}", said.trim()))?;
    Ok((result, count))
}

fn processor_time(pod: &Pod) -> Duration {
    let statistics = fs::read_to_string(cgroup(pod).join("cpu.stat"));
    let statistics = statistics.expect("every cgroup has this file");
    Duration::from_micros(field(&statistics, "usage_usec"))
}

fn switches(pod: &Pod) -> u64 {
    let threads = pids(pod).into_iter().flat_map(|pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        threads.flatten().map(|thread| thread.path().join("status"))
    });
    // One that has ended since has nothing to say.
    let status = threads.map(|path| fs::read_to_string(path).unwrap_or_default());
    let of = |status: String| {
        field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:")
    };
    status.map(of).sum()
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
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nVmRSS:\t  42 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 5);
        assert_eq!(field(text, "VmRSS:"), 42);
        assert_eq!(field(text, "VmSwap:"), 0);
    }
}
