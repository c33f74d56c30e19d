//! h2load, which counts what it gets.

use std::collections::BTreeMap;

use crate::{Pod, wait};

/// Has it make so many requests from a pod, and returns how many answers of each class, `2xx` to
/// `5xx`, it has got.
///
/// # Panics
///
/// When a request is not answered.
#[track_caller]
pub fn run(client: &Pod, requests: u64, arguments: &[&str]) -> BTreeMap<String, u64> {
    let report = client
        .program("/usr/bin/h2load")
        .args(["-n", &requests.to_string()])
        .args(arguments)
        .deadline(8 * wait::DEADLINE)
        .succeed();
    let line = |start: &str| {
        let found = report.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("not a report of h2load: {report}"))
    };
    let all_done = format!("{requests} total, {requests} started, {requests} done, ");
    let outcome = line("requests: ");
    assert!(
        outcome.starts_with(&all_done) && outcome.ends_with(" 0 errored, 0 timeout"),
        "{report}"
    );
    line("status codes: ")
        .split(", ")
        .map(|class| {
            let (count, class) = class.split_once(' ').expect("a number and a class");
            (class.to_owned(), count.parse().expect("a number"))
        })
        .collect()
}
