use std::{future::pending, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

/// Tells all of the proxy that the end has come, and waits for it.
pub struct Drain {
    /// Announces the deadline.
    announce: watch::Sender<Option<Instant>>,
    /// Never sends anything: it ends when the last connection has dropped its half.
    done: mpsc::Receiver<()>,
}

/// What the rest of the proxy holds of a [`Drain`].
#[derive(Clone)]
pub struct Draining {
    /// When connections must have ended, once the drain has begun.
    deadline: watch::Receiver<Option<Instant>>,
    /// Dropping the last one tells that nothing is left.
    #[expect(dead_code, reason = "it only has to exist")]
    alive: mpsc::Sender<()>,
}

impl Drain {
    /// Makes both halves.
    pub fn new() -> (Self, Draining) {
        let (announce, deadline) = watch::channel(None);
        let (alive, done) = mpsc::channel(1);
        (Self { announce, done }, Draining { deadline, alive })
    }

    /// Stops taking connections, and gives those that are open this long to end. Returns when all
    /// have ended, at the latest shortly after `grace`.
    pub async fn run(mut self, grace: Duration) {
        /// For the records of the connections that were cut.
        const AFTERWARDS: Duration = Duration::from_millis(500);
        let _ = self.announce.send(Some(Instant::now() + grace));
        let _ = timeout(grace + AFTERWARDS, self.done.recv()).await;
    }
}

impl Draining {
    /// Waits until the drain begins.
    pub async fn begun(&self) {
        let mut deadline = self.deadline.clone();
        if deadline.wait_for(Option::is_some).await.is_err() {
            // Nobody is left who could announce it.
            pending::<()>().await;
        }
    }

    /// Has the drain begun?
    pub fn has_begun(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// A handle for one connection, which the drain waits for.
    pub fn connection(&self) -> Self {
        self.clone()
    }

    /// Waits until the connection must end.
    pub async fn expired(&self) {
        let mut deadline = self.deadline.clone();
        let announced = match deadline.wait_for(Option::is_some).await {
            Ok(deadline) => *deadline,
            Err(_) => None,
        };
        match announced {
            Some(deadline) => sleep_until(deadline).await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_as_soon_as_nothing_is_left() {
        let (drain, draining) = Drain::new();
        let connection = draining.connection();
        drop(draining);
        tokio::spawn(async move {
            connection.begun().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        let started = Instant::now();
        drain.run(Duration::from_secs(60)).await;
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_stay_are_told_to_end() {
        let (drain, draining) = Drain::new();
        let connection = tokio::spawn(async move { draining.expired().await });
        let started = Instant::now();
        drain.run(Duration::from_secs(5)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        connection.await.expect("the connection was told");
    }
}
