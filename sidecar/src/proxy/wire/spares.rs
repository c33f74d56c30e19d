use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::Wire;
use crate::{proxy::OrigDst, tls::Tls};

/// How many wires are kept at once, in all. Each takes about 8 KB here, more there, and a descriptor.
const MOST: usize = 512;

/// How long a wire may take to end in good order, before it is reset.
const CLOSING: Duration = Duration::from_secs(5);

/// Wires that have nothing to carry, kept for the next connections to where they go.
pub struct Spares {
    /// How long each is kept.
    patience: Duration,
    table: Mutex<Table>,
    /// Told when there is a first one.
    some: Notify,
}

#[derive(Default)]
struct Table {
    /// Those that were used last are at the end, and are used first: the others may go.
    by_destination: HashMap<SocketAddr, Vec<Spare>>,
    count: usize,
    /// None is kept any more.
    is_closed: bool,
}

/// A wire that waits for a use.
pub(in super::super) struct Spare {
    pub(in super::super) wire: Box<Wire>,
    /// When it was last used.
    since: Instant,
}

impl Spare {
    /// Was it in use until a moment ago, so that hardly anything can have happened to the server that we
    /// have not heard of?
    pub(in super::super) fn is_fresh(&self) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        self.since.elapsed() < MOMENT
    }
}

impl Spares {
    /// Keeps wires for so long; not at all, if that is nothing.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            table: Mutex::default(),
            some: Notify::new(),
        }
    }

    /// A wire to a destination on which nothing is wrong, as far as can be seen from here.
    pub(in super::super) fn take(
        &self,
        destination: OrigDst,
        identity: Option<&Arc<Tls>>,
    ) -> Option<Spare> {
        loop {
            let mut spare = self.lock().pop(destination.0)?;
            let is_over = spare.since.elapsed() >= self.patience;
            let wire = &mut spare.wire;
            if !is_over && wire.holds_under(identity) && wire.stream.is_quiet() {
                return Some(spare);
            }
            close(spare.wire);
        }
    }

    /// Keeps a wire whose connection has ended in good order, if it goes where it was dialled to.
    pub(in super::super) fn put(&self, destination: OrigDst, wire: Box<Wire>) {
        let goes_there = wire.stream.says_reached() == Some(destination.0);
        if !goes_there || self.patience.is_zero() {
            return close(wire);
        }
        let mut table = self.lock();
        if table.is_closed || table.count == MOST {
            drop(table);
            return close(wire);
        }
        let since = Instant::now();
        table.push(destination.0, Spare { wire, since });
        if table.count == 1 {
            self.some.notify_one();
        }
    }

    /// Closes those that nobody has used for long, until it is told to close all.
    pub async fn close_idle(&self, end: impl Future<Output = ()>) {
        let idle = async {
            loop {
                let Some(oldest) = self.lock().oldest() else {
                    self.some.notified().await;
                    continue;
                };
                sleep_until(oldest + self.patience).await;
                let over = self.lock().used_before(Instant::now() - self.patience);
                close_all(over);
            }
        };
        tokio::select! {
            () = end => {}
            () = idle => {}
        }
        let mut table = self.lock();
        table.is_closed = true;
        let all = std::mem::take(&mut table.by_destination);
        table.count = 0;
        drop(table);
        close_all(all.into_values().flatten());
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change is whole before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn push(&mut self, destination: SocketAddr, spare: Spare) {
        self.by_destination
            .entry(destination)
            .or_default()
            .push(spare);
        self.count += 1;
    }

    fn pop(&mut self, destination: SocketAddr) -> Option<Spare> {
        let spares = self.by_destination.get_mut(&destination)?;
        let spare = spares.pop();
        if spares.is_empty() {
            self.by_destination.remove(&destination);
        }
        self.count -= usize::from(spare.is_some());
        spare
    }

    /// When the one was used that was not for the longest time.
    fn oldest(&self) -> Option<Instant> {
        let firsts = self
            .by_destination
            .values()
            .filter_map(|spares| spares.first());
        firsts.map(|spare| spare.since).min()
    }

    fn used_before(&mut self, limit: Instant) -> Vec<Spare> {
        let mut over = Vec::new();
        self.by_destination.retain(|_, spares| {
            let recent = spares.partition_point(|spare| spare.since <= limit);
            over.extend(spares.drain(..recent));
            !spares.is_empty()
        });
        self.count -= over.len();
        over
    }
}

fn close_all(spares: impl IntoIterator<Item = Spare>) {
    for spare in spares {
        close(spare.wire);
    }
}

/// Ends a wire without anybody waiting for it.
pub(in super::super) fn close(wire: Box<Wire>) {
    tokio::spawn(async move {
        // Whatever the peer does, it is closed then.
        let _ = timeout(CLOSING, wire.close()).await;
    });
}
