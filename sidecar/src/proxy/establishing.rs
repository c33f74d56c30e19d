use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::Close;
use crate::policy::Direction;

/// How often a flood is logged while it lasts.
const PAUSE: Duration = Duration::from_secs(10);

/// Bounds how many connections are in the making at once, so that peers that never finish their
/// handshakes take a bounded share of memory and descriptors.
///
/// New work is shed; connections that are established need no permit any more. Each direction has
/// a bound of its own: a flood from the network does not keep the app from dialling.
pub struct Establishing {
    inbound: Gate,
    outbound: Gate,
    /// Of each direction, for messages.
    limit: usize,
}

/// One direction's.
struct Gate {
    /// One for each connection that may be in the making.
    permits: Arc<Semaphore>,
    /// What was shed since it was last logged.
    shed: Mutex<Shed>,
}

#[derive(Default)]
struct Shed {
    count: u64,
    logged: Option<Instant>,
}

/// Allows one connection to be in the making, until it is dropped.
pub(super) type Permit = OwnedSemaphorePermit;

impl Establishing {
    /// Allows this many connections of each direction.
    pub fn new(limit: usize) -> Self {
        let gate = || Gate {
            permits: Arc::new(Semaphore::new(limit)),
            shed: Mutex::default(),
        };
        Self {
            inbound: gate(),
            outbound: gate(),
            limit,
        }
    }

    /// Allows one more connection, unless there are as many as may be.
    pub(super) fn admit(&self, direction: Direction) -> Option<Permit> {
        let gate = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let permit = Arc::clone(&gate.permits).try_acquire_owned().ok();
        if permit.is_none()
            && let Some(count) = gate.shed()
        {
            tracing::warn!(
                %direction,
                reason = %Close::Overloaded,
                "refused {count} connections because {} others were in the making, as many as \
                 max-handshakes allows",
                self.limit
            );
        }
        permit
    }
}

impl Gate {
    /// Counts one that was shed. Tells how many were, when it is time to log it.
    fn shed(&self) -> Option<u64> {
        let mut shed = self.shed.lock().unwrap_or_else(PoisonError::into_inner);
        shed.count += 1;
        if shed.logged.is_some_and(|logged| logged.elapsed() < PAUSE) {
            return None;
        }
        shed.logged = Some(Instant::now());
        Some(std::mem::take(&mut shed.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_established_makes_room_for_another() {
        let establishing = Establishing::new(2);
        let admit = || establishing.admit(Direction::Inbound);
        let (first, second) = (admit(), admit());
        assert!(first.is_some() && second.is_some() && admit().is_none());
        drop(first);
        assert!(admit().is_some());
    }

    #[test]
    fn a_flood_in_one_direction_leaves_the_other_open() {
        let establishing = Establishing::new(1);
        let _flood = establishing.admit(Direction::Inbound);
        assert!(establishing.admit(Direction::Inbound).is_none());
        assert!(establishing.admit(Direction::Outbound).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_logged_now_and_then_and_counted_whole() {
        let gate = Establishing::new(1).inbound;
        assert_eq!(gate.shed(), Some(1));
        for _ in 0..100 {
            assert_eq!(gate.shed(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(gate.shed(), Some(101));
    }
}
