//! `h2load`, which makes HTTP/2 requests, several at once on each connection.

use std::time::Duration;

use sidecar_tests::Pod;

const PROGRAM: &str = "/usr/bin/h2load";

/// What came of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u32,
    /// Requests answered per second.
    pub rate: f64,
    /// Requests that failed and answers that were no success.
    pub failed: u32,
}

/// Runs it in `pod` for some `seconds`.
#[track_caller]
pub fn run(pod: &Pod, seconds: u64, arguments: &[&str]) -> Load {
    let output = pod
        .program(PROGRAM)
        .args(["--duration", &seconds.to_string()])
        .args(arguments)
        .deadline(Duration::from_secs(seconds + 30))
        .succeed();
    Load::parse(&output).unwrap_or_else(|| panic!("not what h2load prints: {output}"))
}

impl Load {
    fn parse(output: &str) -> Option<Self> {
        let after = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
        let rate = after("finished in ")?.split(", ").nth(1)?;
        let requests = after("requests: ")?;
        // What is under way when time is up counts for neither.
        let count = |kind: &str| {
            let mut counts = requests
                .split(", ")
                .filter_map(|count| count.split_once(' '));
            let (count, _) = counts.find(|(_, what)| *what == kind)?;
            count.parse::<u32>().ok()
        };
        Some(Self {
            requests: count("succeeded")?,
            rate: rate.strip_suffix(" req/s")?.parse().ok()?,
            failed: count("failed")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "\
finished in 1.00s, 12345.50 req/s, 1.20MB/s
requests: 12350 total, 12500 started, 12350 done, 12340 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 12340 2xx, 0 3xx, 0 4xx, 10 5xx
";

        let expected = Load {
            requests: 12_340,
            rate: 12_345.5,
            failed: 10,
        };
        assert_eq!(Load::parse(report), Some(expected));
        assert_eq!(Load::parse("unable to connect"), None);
    }
}
