#![expect(unsafe_code, reason = "polling a descriptor of somebody else")]

//! What TCP has measured on the proxy's sockets, as the kernel side tells it through a ring buffer.

use std::{
    fs::{File, TryLockError},
    io,
    time::Duration,
};

use aya::maps::{Map, MapData, RingBuf};
use sidecar_common::SocketStatistics;
use tokio::io::{Interest, unix::AsyncFd};

use super::{Error, Ownership, Pins, maps};

/// Name of the map.
const RING: &str = "SC_STATISTICS";

/// The ring buffer, of which one process at a time reads.
///
/// Sidecars that serve one pod after another share it. If two read at once, one would set back the
/// position of the other, and the kernel would write over what is being read.
pub struct Statistics {
    /// The map, not mapped yet: where to read on is found out by whoever begins to read.
    ring: Map,
    /// The directory that whoever reads holds a lock on.
    turn: File,
}

impl Statistics {
    /// Opens what reading takes, while that may still be opened.
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let path = pins.reader_directory();
        Ok(Self {
            ring: maps::open_any(pins, RING)?,
            turn: File::open(&path).map_err(|source| Error::bpffs("open", &path, source))?,
        })
    }

    /// Waits until nobody else reads, and then tells of each socket what comes, for as long as we
    /// serve the pod. Whoever drops it lets the next one read.
    pub async fn read(self, ownership: Ownership, tell: impl Fn(&SocketStatistics)) {
        if let Err(error) = self.try_read(&ownership, tell).await {
            tracing::warn!("what TCP has measured will be missing from the metrics: {error}");
        }
    }

    async fn try_read(
        self,
        ownership: &Ownership,
        tell: impl Fn(&SocketStatistics),
    ) -> Result<(), io::Error> {
        /// How many are told of before other tasks get their turn.
        const AT_ONCE: usize = 256;
        /// How long what is told may wait.
        const PAUSE: Duration = Duration::from_millis(10);
        // Dropped last, and so when nothing is read any more.
        let _turn = Turn::wait(self.turn).await?;
        let ring: RingBuf<MapData> = self.ring.try_into().map_err(maps::into_io)?;
        // SAFETY: the ring buffer owns its descriptor and keeps it until it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let mut ring = ring.map_err(io::Error::from)?;
        loop {
            let mut ready = ring.readable_mut().await?;
            // Once another sidecar serves, what comes is of connections that only it knows.
            if ownership.loss().map_err(io::Error::other)?.is_some() {
                return Ok(());
            }
            let ring = ready.get_inner_mut();
            let told = (0..AT_ONCE)
                .map_while(|_| {
                    let item = ring.next()?;
                    SocketStatistics::from_bytes(&item).iter().for_each(&tell);
                    Some(())
                })
                .count();
            // The kernel says only once that there is more.
            if told < AT_ONCE {
                ready.clear_ready();
                // Else each connection that ends would wake us up. The ring holds far more than comes meanwhile.
                tokio::time::sleep(PAUSE).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The right to read, until it is dropped.
struct Turn(File);

impl Turn {
    /// Waits until nobody else has it. A process that dies gives it up.
    async fn wait(directory: File) -> io::Result<Self> {
        /// An upgrade loses what the kernel side tells in the meantime only once the ring is full.
        const PERIOD: Duration = Duration::from_millis(100);
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(Self(directory)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PERIOD).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing the file would do; a copy of the descriptor may be about to be executed elsewhere.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_reads_and_the_next_waits_for_its_end() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let wait = || Turn::wait(File::open(directory.path()).expect("it exists"));
        let first = wait().await.expect("nobody reads");
        let waiting = tokio::time::timeout(Duration::from_mins(1), wait()).await;
        assert!(waiting.is_err(), "two read at once");
        let (second, ()) = tokio::join!(wait(), async move { drop(first) });
        assert!(second.is_ok());
    }
}
