//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

use std::{collections::VecDeque, time::Instant};

use super::{Lost, Observation};

/// Follows one connection of HTTP/1.
#[derive(Debug, Default)]
pub(super) struct Http1 {}

impl Http1 {
    /// Bytes from the client.
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
