//! Waiting for a condition, never for a time.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take to come true before the test that waits for it fails.
///
/// Far above what anything here takes, so that a slow machine does not fail a test, and short
/// enough to not stall the suite when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within [`DEADLINE`]; the message says that `what` did not happen.
#[track_caller]
pub fn until(what: impl Display, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits until `condition` has a value, and returns it.
///
/// # Panics
///
/// Like [`until`].
#[track_caller]
pub fn until_some<T>(what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, condition)
        .unwrap_or_else(|| panic!("{what}: still not so after {} s", DEADLINE.as_secs()))
}

/// Waits until `condition` has a value, at most for `deadline`.
pub fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if started.elapsed() > deadline {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
