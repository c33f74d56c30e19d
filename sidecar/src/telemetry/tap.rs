//! Lines about what happens, for those who watch it happen.

mod filter;

use std::{
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use serde_json::json;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::Stream;

pub use self::filter::{Filter, ParseFilterError};
use super::{
    Format,
    record::{Record, timestamp},
};

/// Taps that may be open at once.
const MOST: usize = 4;

/// Lines that wait for the reader of a tap; what comes on top is dropped, and counted.
const LINES: usize = 1024;

/// Who watches. While nobody does, a record costs one load.
#[derive(Default)]
pub(super) struct Taps {
    /// How many there are.
    count: AtomicUsize,
    open: RwLock<Vec<Arc<Watcher>>>,
}

/// One who watches.
struct Watcher {
    filter: Filter,
    format: Format,
    lines: mpsc::Sender<String>,
    /// Lines that did not fit and have not been told.
    dropped: AtomicU64,
}

/// The lines for one who watches, each with its end, as they come.
pub struct Tap {
    taps: Arc<Taps>,
    watcher: Arc<Watcher>,
    lines: mpsc::Receiver<String>,
}

impl Taps {
    /// Watches what fits from now on; `None` if as many as may be are watching already.
    pub(super) fn open(self: &Arc<Self>, format: Format, filter: Filter) -> Option<Tap> {
        let (sender, lines) = mpsc::channel(LINES);
        let watcher = Arc::new(Watcher {
            filter,
            format,
            lines: sender,
            dropped: AtomicU64::new(0),
        });
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST {
            return None;
        }
        open.push(Arc::clone(&watcher));
        self.count.store(open.len(), Ordering::Release);
        Some(Tap {
            taps: Arc::clone(self),
            watcher,
            lines,
        })
    }

    /// Tells those who want to know. Nobody is waited for.
    pub(super) fn tell(&self, record: &Record<'_>) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        for watcher in open.iter().filter(|watcher| watcher.filter.fits(record)) {
            watcher.tell(record);
        }
    }

    fn close(&self, watcher: &Arc<Watcher>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, watcher));
        self.count.store(open.len(), Ordering::Release);
    }
}

impl Watcher {
    fn tell(&self, record: &Record<'_>) {
        // A line that would be dropped is not even written.
        match self.lines.try_reserve() {
            Ok(room) => room.send(self.line(record)),
            Err(TrySendError::Full(())) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            // It is just being closed.
            Err(TrySendError::Closed(())) => {}
        }
    }

    fn line(&self, record: &Record<'_>) -> String {
        let mut line = match self.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        line.push('\n');
        line
    }

    /// A line in the place of those that were dropped since the last one.
    fn gap(&self, now: SystemTime) -> Option<String> {
        // One load, most of the time.
        if self.dropped.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let time = timestamp(now);
        Some(match self.format {
            Format::Json => {
                let gap =
                    json!({"time": format!("{time:.6}"), "event": "dropped", "lines": dropped});
                format!("{gap}\n")
            }
            Format::Text => format!("{time:.6} dropped lines={dropped}\n"),
        })
    }
}

impl Stream for Tap {
    type Item = String;

    /// The next line. What waits comes before the count of what did not fit behind it.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        let next = self.lines.poll_recv(context);
        // A task that has had its share of time is told to wait, too.
        if next.is_pending()
            && self.lines.is_empty()
            && let Some(gap) = self.watcher.gap(SystemTime::now())
        {
            return Poll::Ready(Some(gap));
        }
        next
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.close(&self.watcher);
    }
}

#[cfg(test)]
mod tests;
