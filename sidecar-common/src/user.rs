#![expect(
    unsafe_code,
    reason = "a promise about layouts that only this crate can make"
)]

use aya::Pod;

use crate::{Endpoint, Owner, SocketFacts, SocketStatistics, policy::ModeKey};

// SAFETY: `repr(C)`, nothing but 32-bit integers, so no padding and any bit pattern is valid.
unsafe impl Pod for Endpoint {}

// SAFETY: as for `Endpoint`; `Role` and `Mesh` are transparent over `u32`.
unsafe impl Pod for SocketFacts {}

// SAFETY: `repr(C)`; two bytes, a 16-bit and four 32-bit integers follow each other without gap.
unsafe impl Pod for ModeKey {}

// SAFETY: `repr(C)`; two 64-bit and two 32-bit integers follow each other without gap.
unsafe impl Pod for Owner {}

impl SocketStatistics {
    /// Takes what the kernel side has written into a ring buffer; `None` if it is nothing of this
    /// size.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let is_one = bytes.len() == size_of::<Self>();
        // SAFETY: so many bytes are there, aligned or not; `repr(C)`, three 64-bit and six 32-bit
        // integers follow each other without gap, and any bit pattern is valid.
        is_one.then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn statistics_are_read_as_they_were_written() {
        let words: [u32; 12] = [1, 0, 2, 0, 3, 0, 18, 1, 4, 5, 6, 7];
        let mut bytes = [0; 48];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let expected = SocketStatistics {
            cookie: 1,
            acknowledged: 2,
            received: 3,
            role: Role::OUTBOUND,
            last: 1,
            smoothed_rtt: 4,
            min_rtt: 5,
            retransmitted: 6,
            congestion_window: 7,
        };
        if cfg!(target_endian = "little") {
            assert_eq!(SocketStatistics::from_bytes(&bytes), Some(expected));
        }
        assert_eq!(SocketStatistics::from_bytes(&bytes[1..]), None);
        assert_eq!(SocketStatistics::from_bytes(&[]), None);
    }

    #[test]
    fn what_crosses_the_boundary_has_no_padding() {
        assert_eq!(size_of::<SocketStatistics>(), 3 * 8 + 6 * 4);
        assert_eq!(size_of::<SocketFacts>(), 11 * 4);
    }
}
