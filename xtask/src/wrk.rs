//! `wrk`, which makes as many HTTP requests as are answered, and what it measures.

use std::time::Duration;

use sidecar_tests::Pod;

const PROGRAM: &str = "/usr/bin/wrk";

/// What came of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u32,
    /// Requests answered per second.
    pub rate: f64,
    /// The time that half of the answers took at most.
    pub median: Duration,
    /// The time that 99 of 100 answers took at most.
    pub p99: Duration,
    /// Connections that failed and answers that were no success.
    pub errors: u64,
}

/// Runs it in `pod` for some `seconds`, with one thread and this many `connections`.
#[track_caller]
pub fn run(pod: &Pod, seconds: u64, connections: u32, arguments: &[&str]) -> Load {
    let output = pod
        .program(PROGRAM)
        .args(["--latency", "--threads", "1"])
        .args(["--duration", &format!("{seconds}s")])
        .args(["--connections", &connections.to_string()])
        .args(arguments)
        .deadline(Duration::from_secs(seconds + 30))
        .succeed();
    Load::parse(&output).unwrap_or_else(|| panic!("not what wrk prints: {output}"))
}

impl Load {
    fn parse(output: &str) -> Option<Self> {
        let after = |start: &str| {
            let mut lines = output.lines().map(str::trim_start);
            lines.find_map(|line| Some(line.strip_prefix(start)?.trim()))
        };
        let errors = [after("Socket errors:"), after("Non-2xx or 3xx responses:")];
        let requests = output
            .lines()
            .find_map(|line| line.split_once(" requests in "));
        Some(Self {
            requests: requests?.0.trim().parse().ok()?,
            rate: after("Requests/sec:")?.parse().ok()?,
            median: duration(after("50%")?)?,
            p99: duration(after("99%")?)?,
            errors: errors.into_iter().flatten().map(numbers).sum(),
        })
    }
}

/// The sum of the numbers in words like `connect 0, read 3, write 0, timeout 1`.
fn numbers(words: &str) -> u64 {
    words
        .split([' ', ','])
        .filter_map(|word| word.parse::<u64>().ok())
        .sum()
}

/// A duration in `wrk`'s notation, such as `81.00us`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 1s test @ http://198.18.0.2:8080/
  1 threads and 1 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    83.21us   31.05us   1.20ms   93.33%
    Req/Sec    12.02k     0.91k   13.11k    72.73%
  Latency Distribution
     50%   77.00us
     75%   84.00us
     90%  101.00us
     99%    1.25ms
  13155 requests in 1.10s, 1.53MB read
";

    #[test]
    fn a_report_is_read_with_its_units() {
        let load = Load::parse(&format!("{OUTPUT}Requests/sec:  11960.49\n"));

        let expected = Load {
            requests: 13_155,
            rate: 11_960.49,
            median: Duration::from_micros(77),
            p99: Duration::from_micros(1250),
            errors: 0,
        };
        assert_eq!(load, Some(expected));
    }

    #[test]
    fn errors_of_every_kind_count() {
        let report = format!(
            "{OUTPUT}  Socket errors: connect 1, read 20, write 300, timeout 0
  Non-2xx or 3xx responses: 4000
Requests/sec:  1.00
"
        );

        assert_eq!(Load::parse(&report).map(|load| load.errors), Some(4321));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert_eq!(Load::parse("unable to connect"), None);
    }
}
