#![expect(
    unsafe_code,
    reason = "a promise about layouts that only this crate can make"
)]

use aya::Pod;

use crate::{Endpoint, Owner, SocketFacts, policy::ModeKey};

// SAFETY: `repr(C)`, nothing but 32-bit integers, so no padding and any bit pattern is valid.
unsafe impl Pod for Endpoint {}

// SAFETY: as for `Endpoint`; `Role` and `Mesh` are transparent over `u32`.
unsafe impl Pod for SocketFacts {}

// SAFETY: `repr(C)`; two bytes, a 16-bit and four 32-bit integers follow each other without gap.
unsafe impl Pod for ModeKey {}

// SAFETY: `repr(C)`; two 64-bit and two 32-bit integers follow each other without gap.
unsafe impl Pod for Owner {}
