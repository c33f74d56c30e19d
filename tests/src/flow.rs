//! The bytes that one side of a TCP connection has sent.

use std::collections::BTreeMap;

use etherparse::TcpSlice;
use memchr::memmem;

use crate::tls::Records;

/// The bytes of one direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// The sequence number of the first byte, known from the SYN.
    start: Option<u32>,
    /// What was captured, by distance from the start. Runs neither touch nor overlap.
    runs: BTreeMap<u32, Vec<u8>>,
    /// Whether it was ended by a FIN.
    pub fin: bool,
    /// Whether it was ended by a RST.
    pub rst: bool,
}

impl Flow {
    /// What was sent, up to the first byte that was not captured.
    pub fn bytes(&self) -> &[u8] {
        self.runs.get(&0).map_or(&[], Vec::as_slice)
    }

    /// The TLS records sent; nothing when it is not TLS.
    pub fn records(&self) -> Option<Records> {
        Records::count(self.bytes())
    }

    /// Whether `bytes` were sent in one piece.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.runs
            .values()
            .any(|run| memmem::find(run, bytes).is_some())
    }

    /// Whether this is the sequence number of the first byte.
    pub(crate) fn starts_at(&self, sequence: u32) -> bool {
        self.start == Some(sequence)
    }

    /// Adds what a segment carries.
    pub(crate) fn add(&mut self, tcp: &TcpSlice<'_>) {
        self.fin |= tcp.fin();
        self.rst |= tcp.rst();
        if tcp.syn() {
            self.start = Some(tcp.sequence_number().wrapping_add(1));
        }
        let first = tcp.sequence_number().wrapping_add(u32::from(tcp.syn()));
        if let Some(start) = self.start {
            self.insert(first.wrapping_sub(start), tcp.payload());
        }
    }

    /// Adds bytes that stand `at` this distance from the start.
    fn insert(&mut self, at: u32, bytes: &[u8]) {
        let length = |run: &[u8]| u32::try_from(run.len()).expect("a capture fits into 4 GiB");
        // Keep-alive probes carry a byte from before the start, at a distance close to 2^32.
        let Some(end) = at.checked_add(length(bytes)) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        let before = self
            .runs
            .range(..=at)
            .next_back()
            .map(|(start, run)| (*start, length(run)));
        let (start, known) = match before {
            Some((start, known)) if start + known >= at => (start, start + known),
            _ => (at, at),
        };
        if end <= known {
            return;
        }
        let run = self.runs.entry(start).or_default();
        run.extend_from_slice(&bytes[(known - at) as usize..]);
        // What lies behind may be reached now.
        while let Some((&next, _)) = self.runs.range(start + 1..=end).next() {
            let behind = self.runs.remove(&next).expect("it was just found");
            let run = self.runs.get_mut(&start).expect("it was just extended");
            let end = start + length(run);
            run.extend_from_slice(behind.get((end - next) as usize..).unwrap_or_default());
        }
    }
}
