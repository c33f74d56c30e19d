//! The kernel that all this runs on.

use std::fs;

/// Major and minor number of its release.
#[must_use]
pub fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel tells");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut number = || numbers.next().expect("two numbers").expect("a number");
    (number(), number())
}

/// Whether its verifier takes programs like ours only from whoever has `CAP_PERFMON`, too.
#[must_use]
pub fn verifier_takes_perfmon() -> bool {
    // That of 6.1 does, and that of 6.12 does not.
    release() < (6, 12)
}
