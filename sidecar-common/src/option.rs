//! The TCP option by which two sidecars find each other inside the handshake.
//!
//! It is an experimental option with an experiment identifier (RFC 6994): a client proxy puts it
//! into the SYN, a server proxy answers with the same option in the SYN-ACK. Nothing is read from
//! the connection and no time is lost, so protocols in which the server speaks first work too.

/// Option kind for experiments (RFC 4727, section 4).
pub const KIND: u8 = 253;

/// Experiment identifier in front of our bytes (RFC 6994, section 3).
pub const EXPERIMENT: [u8; 2] = [0x5c, 0xa1];

/// Version of what follows the option: mutual TLS 1.3 on the connection itself.
pub const VERSION: u8 = 1;

/// Length of the option in bytes: kind, length, experiment identifier, version, flags.
pub const LENGTH: usize = 6;

/// Flag of a SYN-ACK: the server keeps nothing of the SYN, and has the client show the option again.
///
/// That is so while it sends SYN cookies. A client that does not know the flag ignores it, like all flags
/// that are not defined.
pub const AGAIN: u8 = 1;

/// The option as it stands on the wire, with these flags.
#[inline]
pub const fn bytes(flags: u8) -> [u8; LENGTH] {
    [KIND, 6, EXPERIMENT[0], EXPERIMENT[1], VERSION, flags]
}

/// SYNs that carry the option before a retransmission goes without it: the first and two more.
///
/// Something on the way may drop a SYN with an option that it does not know.
pub const MAX_OFFERS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_byte_counts_the_whole_option() {
        assert_eq!(usize::from(bytes(AGAIN)[1]), bytes(0).len());
    }
}
