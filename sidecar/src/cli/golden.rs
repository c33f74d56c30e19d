//! Files that pin what commands print, for tests.

use std::{env, fs, path::Path};

use crate::{
    policy::Direction,
    telemetry::{EdgeSnapshot, Latencies},
};

/// Set it, to anything, to write what is printed now instead of comparing with it:
/// `SIDECAR_WRITE_GOLDEN=1 cargo test -p sidecar golden`. Then read the difference.
const WRITE: &str = "SIDECAR_WRITE_GOLDEN";

/// Compares with a file of `tests/golden`, line by line.
#[track_caller]
pub(crate) fn assert(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, printed).expect("writing a golden file");
        return;
    }
    let golden = fs::read_to_string(&path).expect("reading a golden file");
    assert!(
        printed == golden,
        "not as in {}; {WRITE}=1 rewrites it:\n{}",
        path.display(),
        difference(&golden, printed)
    );
}

/// The same, of what a terminal of 80 columns has room for.
#[track_caller]
pub(super) fn assert_narrow(name: &str, printed: &str) {
    for line in printed.lines() {
        let columns = line.chars().count();
        assert!(columns <= 80, "{columns} columns: {line}");
    }
    assert(name, printed);
}

/// Lines that differ, as `-` of the file and `+` of what is printed, and others as they are.
fn difference(golden: &str, printed: &str) -> String {
    let (mut golden, mut printed) = (golden.lines(), printed.lines());
    let mut difference = String::new();
    loop {
        let (old, new) = match (golden.next(), printed.next()) {
            (None, None) => return difference,
            (old, new) if old == new => (old.map(|line| format!("  {line}\n")), None),
            (old, new) => (
                old.map(|line| format!("- {line}\n")),
                new.map(|line| format!("+ {line}\n")),
            ),
        };
        difference.extend([old, new].into_iter().flatten());
    }
}

/// An edge that is idle, with a workload of this name unless it is empty.
pub(super) fn edge(direction: Direction, server: &str, client: &str, peer: &str) -> EdgeSnapshot {
    let is_secured = !peer.is_empty();
    let id = |name: &str| format!("spiffe://sidecar.local/ns/default/sa/{name}");
    EdgeSnapshot {
        direction,
        client: client.parse().ok(),
        server: server.parse().expect("an address"),
        tls: if is_secured {
            "mutual"
        } else {
            "no_peer_option"
        }
        .into(),
        own: is_secured.then(|| id("shop")),
        peer: is_secured.then(|| id(peer)),
        opened: 0,
        open: 0,
        failed: std::collections::BTreeMap::new(),
        sent: 0,
        received: 0,
        requests: 0,
        failed_requests: 0,
        latency: Latencies::default(),
        idle: 0.0,
    }
}

#[test]
fn a_difference_shows_both_lines() {
    assert_eq!(difference("a\nb\n", "a\nc\nd\n"), "  a\n- b\n+ c\n+ d\n");
}
