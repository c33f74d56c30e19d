//! HTTP/2 (RFC 9113) and gRPC over it.

use std::{collections::VecDeque, time::Instant};

use super::{Lost, Observation};

/// The first bytes of a client that knows its server to speak HTTP/2 (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows one connection of HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Http2 {}

impl Http2 {
    /// Bytes from the client, the preface first.
    pub(super) fn sent(
        &mut self,
        bytes: &[u8],
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        let _ = (bytes, now, seen);
        Err(Lost::Malformed)
    }

    /// Bytes from the server.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        let _ = (bytes, now, seen);
        Err(Lost::Malformed)
    }

    /// The connection is over, or is not followed any more.
    pub(super) fn ended(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        let _ = (now, seen);
    }
}
