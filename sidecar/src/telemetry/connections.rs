use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::TlsUse;
use crate::{
    observe::{Lost, Protocol},
    policy::Direction,
    proxy::{ClientAddr, OrigDst},
};

/// The connections that are open.
#[derive(Default)]
pub(super) struct Connections {
    /// By number, so that the oldest come first.
    open: Mutex<BTreeMap<u64, Arc<Entry>>>,
    /// The number of the next one.
    next: AtomicU64,
}

/// One open connection. The task that serves it writes, whoever asks reads.
pub(super) struct Entry {
    number: u64,
    pub(super) direction: Direction,
    /// Where it comes from, as accepted.
    accepted_from: ClientAddr,
    /// Where it comes from, as the peer sees it.
    seen_from: OnceLock<ClientAddr>,
    pub(super) destination: OrigDst,
    started: Instant,
    tls: OnceLock<Encryption>,
    /// What it speaks.
    protocol: OnceLock<Protocol>,
    /// Why that is not followed, or no longer.
    lost: OnceLock<&'static str>,
    sent: AtomicU64,
    received: AtomicU64,
}

struct Encryption {
    tls: &'static str,
    /// Own and peer, where TLS is really used.
    identities: Option<(String, String)>,
}

/// One open connection as it is now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Snapshot {
    /// Which way it runs.
    pub direction: Direction,
    /// Where it comes from.
    pub client: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// Whether it is encrypted, and if not, why.
    pub tls: Cow<'static, str>,
    /// The own identity, where TLS is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
    /// The peer's identity, where TLS is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What it speaks, once it has begun a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Cow<'static, str>>,
    /// Why that is not followed, or no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Cow<'static, str>>,
    /// Bytes from client to server so far.
    pub sent: u64,
    /// Bytes from server to client so far.
    pub received: u64,
    /// Seconds since it was accepted.
    pub age: f64,
}

impl Connections {
    pub(super) fn add(
        &self,
        direction: Direction,
        client: ClientAddr,
        destination: OrigDst,
    ) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            direction,
            accepted_from: client,
            seen_from: OnceLock::new(),
            destination,
            started: Instant::now(),
            tls: OnceLock::new(),
            protocol: OnceLock::new(),
            lost: OnceLock::new(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        self.lock().insert(entry.number, Arc::clone(&entry));
        entry
    }

    pub(super) fn remove(&self, entry: &Entry) {
        self.lock().remove(&entry.number);
    }

    pub(super) fn snapshot(&self) -> Vec<Snapshot> {
        // The lock is held only to copy the handles: connections open and close meanwhile.
        let open: Vec<_> = self.lock().values().cloned().collect();
        open.iter().map(|entry| entry.snapshot()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        // Each change is a single insertion or removal, which a panic cannot leave half-done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn set_tls(&self, tls: &TlsUse, own: &str) {
        // It is decided once for each connection.
        let _ = self.tls.set(Encryption {
            tls: tls.as_str(),
            identities: tls.peer().map(|peer| (own.to_owned(), peer.to_string())),
        });
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        let _ = self.protocol.set(protocol);
    }

    pub(super) fn set_lost(&self, lost: &Lost) {
        let _ = self.lost.set(lost.as_str());
    }

    pub(super) fn set_seen_from(&self, client: ClientAddr) {
        // There is one dial for each connection.
        let _ = self.seen_from.set(client);
    }

    /// Where it comes from: as the peer sees it, where that is known.
    pub(super) fn client(&self) -> ClientAddr {
        self.seen_from.get().copied().unwrap_or(self.accepted_from)
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes sent and received so far.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }

    fn snapshot(&self) -> Snapshot {
        let encryption = self.tls.get();
        let identities = encryption.and_then(|encryption| encryption.identities.as_ref());
        let (sent, received) = self.bytes();
        Snapshot {
            direction: self.direction,
            client: self.client().0,
            destination: self.destination.0,
            tls: encryption
                .map_or(TlsUse::Pending.as_str(), |encryption| encryption.tls)
                .into(),
            own: identities.map(|(own, _)| own.clone()),
            peer: identities.map(|(_, peer)| peer.clone()),
            protocol: self.protocol.get().map(|protocol| protocol.as_str().into()),
            opaque: self.lost.get().map(|lost| (*lost).into()),
            sent,
            received,
            age: self.started.elapsed().as_secs_f64(),
        }
    }
}
