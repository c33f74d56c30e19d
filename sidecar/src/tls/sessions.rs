//! Sessions that are taken up again, so that not every connection between the same two workloads
//! costs four signatures (RFC 8446 section 2.2).
//!
//! Keys are agreed on anew each time, so what is recorded stays secret whatever becomes of a ticket.
//! There is no early data. Sessions live in the [`Tls`](super::Tls) that they were made by, on either
//! side, so they end with the own identity and with whom it trusts: a revoked peer has none. They
//! are not taken up once the own certificate is over; and if one of the peer's chain is, that is
//! judged again.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls12Resumption, Tls13ClientSessionValue,
    },
    pki_types::ServerName,
    server::{ServerSessionMemoryCache, StoresServerSessions},
};

/// How many sessions a server has in memory, each with the certificates of its client: about 1 KB.
/// Older ones are forgotten, whose clients then prove who they are again.
const HELD: usize = 512;

/// The longest session that a server has in memory, in bytes. Whoever shows longer certificates proves
/// who he is each time: nobody can have memory filled, also not who is refused afterwards.
const LONGEST: usize = 4096;

/// How many tickets a client holds for one server is up to rustls: 8. It holds those of about as many
/// servers as one workload talks to.
const TICKETS: usize = 8 * 64;

/// How many a server gives for each connection. Each serves once, so a client that has one always
/// gets the next.
pub(super) const GIVEN: usize = 1;

/// The sessions of a client whose certificate is valid until then.
pub(super) fn of_client(until: SystemTime) -> Resumption {
    let sessions = ClientSessionMemoryCache::new(TICKETS);
    Resumption::store(Arc::new(Until { until, sessions }))
        .tls12_resumption(Tls12Resumption::Disabled)
}

/// The sessions of a server whose certificate is valid until then.
pub(super) fn of_server(until: SystemTime) -> Arc<dyn StoresServerSessions> {
    let sessions = ServerSessionMemoryCache::new(HELD);
    Arc::new(Until { until, sessions })
}

/// Sessions that nobody takes up once the own certificate is over.
///
/// Peers would refuse it in a full handshake, and have no such chance in one that is short.
#[derive(Debug)]
struct Until<S> {
    until: SystemTime,
    sessions: S,
}

impl<S> Until<S> {
    fn is_over(&self) -> bool {
        SystemTime::now() > self.until
    }
}

impl StoresServerSessions for Until<Arc<ServerSessionMemoryCache>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        value.len() <= LONGEST && self.sessions.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.is_over() {
            return None;
        }
        self.sessions.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.is_over() {
            return None;
        }
        self.sessions.take(key)
    }

    fn can_cache(&self) -> bool {
        self.sessions.can_cache()
    }
}

impl ClientSessionStore for Until<ClientSessionMemoryCache> {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.is_over() {
            return None;
        }
        self.sessions.take_tls13_ticket(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_holds_of_its_clients_is_bounded() {
        let sessions = of_server(SystemTime::now() + std::time::Duration::from_hours(1));
        let key = |number: usize| number.to_be_bytes().to_vec();
        assert!(!sessions.put(key(0), vec![0; LONGEST + 1]));
        assert_eq!(sessions.take(&key(0)), None);
        for number in 1..=4 * HELD {
            assert!(sessions.put(key(number), vec![0; LONGEST]));
        }
        let held = (1..=4 * HELD).filter(|number| sessions.get(&key(*number)).is_some());
        // It rounds up.
        assert!((HELD..=2 * HELD).contains(&held.count()));
    }
}
