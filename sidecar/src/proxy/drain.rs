use std::time::Duration;

use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Ends the proxy in good order: no new connections, a while for those that are open, then the
/// rest is cut. Cheap to clone.
#[derive(Clone, Default)]
pub struct Drain {
    /// Cancelled when no connection is taken any more.
    begun: CancellationToken,
    /// Cancelled when what is open is used up: nothing is kept for another use.
    leaving: CancellationToken,
    /// Cancelled when the connections that are left have to end.
    expired: CancellationToken,
    /// The connections that are open.
    connections: TaskTracker,
    /// Those who accept connections, which become open ones.
    acceptors: TaskTracker,
}

impl Drain {
    /// Stops taking connections, and gives those that are open this long to end. Returns as soon
    /// as all have.
    pub async fn run(&self, grace: Duration) {
        /// For the records of the connections that were cut.
        const AFTERWARDS: Duration = Duration::from_millis(500);
        self.leaving.cancel();
        self.begun.cancel();
        // What waited to be accepted has been told that it is connected, and may have ended already.
        self.acceptors.close();
        self.acceptors.wait().await;
        self.connections.close();
        if timeout(grace, self.connections.wait()).await.is_err() {
            self.expired.cancel();
            let _ = timeout(AFTERWARDS, self.connections.wait()).await;
        }
    }

    /// Returns when nothing is open any more, and stops taking connections only then: another
    /// listener gets the new ones, and what comes here was under way before.
    pub async fn hand_over(&self) {
        /// For handshakes whose SYN has come to our listener, retransmissions included.
        const HANDSHAKES: Duration = Duration::from_secs(5);
        self.leaving.cancel();
        tokio::time::sleep(HANDSHAKES).await;
        self.connections.close();
        self.connections.wait().await;
        self.begun.cancel();
    }

    /// Who accepts connections says so: those that wait are taken before any are waited for.
    pub(super) fn accepts(&self) -> TaskTrackerToken {
        self.acceptors.token()
    }

    /// Has it begun?
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.connections.len()
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until nothing that is open is to be kept for another use.
    pub async fn is_leaving(&self) {
        self.leaving.cancelled().await;
    }

    /// Serves a connection in a task of its own, until it ends or has to.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let expired = self.expired.clone();
        // Each layer around a future that is not in a box of its own has room for it once more.
        let connection = Box::pin(connection);
        self.connections
            .spawn(async move { expired.run_until_cancelled(connection).await });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_as_soon_as_nothing_is_left() {
        let drain = Drain::default();
        drain.spawn(sleep(Duration::from_secs(2)));
        let started = Instant::now();
        // Whoever only watches is not waited for.
        let watcher = drain.clone();
        drain.run(Duration::from_mins(1)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        assert!(watcher.has_begun());
    }

    #[tokio::test(start_paused = true)]
    async fn who_hands_over_takes_what_is_under_way_and_cuts_nothing() {
        let drain = Drain::default();
        drain.spawn(sleep(Duration::from_hours(1)));
        let over = tokio::spawn({
            let drain = drain.clone();
            async move { drain.hand_over().await }
        });
        sleep(Duration::from_mins(1)).await;
        assert!(!drain.has_begun());
        drain.spawn(sleep(Duration::from_hours(2)));
        sleep(Duration::from_mins(90)).await;
        assert!(!over.is_finished());
        over.await.expect("no panic");
        assert!(drain.has_begun());
        assert!(drain.connections.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_hands_over_waits_for_handshakes() {
        let drain = Drain::default();
        let started = Instant::now();
        drain.hand_over().await;
        assert!(started.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_stay_are_cut() {
        let drain = Drain::default();
        drain.spawn(std::future::pending());
        let started = Instant::now();
        drain.run(Duration::from_secs(5)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert!(drain.connections.is_empty());
    }
}
