//! Whether the machine has nothing else to do.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;

/// How much of the machine other work takes, from 0 to 1, while nothing of ours runs.
pub fn busy() -> anyhow::Result<f64> {
    let before = Ticks::now()?;
    thread::sleep(Duration::from_secs(1));
    let after = Ticks::now()?;
    Ok(after.busy_since(before))
}

/// The processors' time since the machine started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    idle: f64,
    total: f64,
}

impl Ticks {
    fn now() -> anyhow::Result<Self> {
        let statistics = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&statistics).context("/proc/stat does not start with the processors' time")
    }

    /// The first line is `cpu user nice system idle iowait …` (proc(5)).
    fn parse(statistics: &str) -> Option<Self> {
        let ticks = statistics.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = ticks
            .split_whitespace()
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        Some(Self {
            idle: ticks.get(3..5)?.iter().sum(),
            total: ticks.iter().sum(),
        })
    }

    fn busy_since(self, before: Self) -> f64 {
        let total = self.total - before.total;
        if total > 0.0 {
            1.0 - (self.idle - before.idle) / total
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_and_waiting_for_disks_is_not_busy() {
        let [before, after] = [
            "cpu  10 0 10 70 10 0 0",
            "cpu  25 5 20 130 20 0 0\ncpu0 1 2 3 4",
        ]
        .map(|statistics| Ticks::parse(statistics).expect("it is what the kernel prints"));

        assert!((after.busy_since(before) - 0.3).abs() < 1e-9);
        assert!(before.busy_since(before).abs() < 1e-9);
    }
}
