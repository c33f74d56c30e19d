use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use spiffe::SpiffeId;
use tokio::time::{Instant, sleep};

use super::{Backoff, Identity, Source, backoff::shortened};
use crate::identity::{Ca, Error, ROOT_LIFETIME, SVID_LIFETIME, Svid, blocking};

/// How often the clock is looked at: a machine that was asleep finds its certificate older than the
/// timer knows.
const LOOK: Duration = Duration::from_mins(1);

/// A certificate authority in a directory, made on first use. Workloads that share the directory
/// trust each other, so whoever can read it can be any of them.
///
/// A new certificate is issued when half of the life of the last one is over, or a little earlier.
pub(crate) struct DevCa {
    /// Where the authority lives.
    dir: PathBuf,
    /// The identity to have issued. Its trust domain becomes that of a new authority.
    id: SpiffeId,
    /// When to issue the next certificate; at once when there was none.
    due: Option<Due>,
    /// Spaces attempts that fail.
    backoff: Backoff,
}

/// A time by two clocks: whichever is there first.
struct Due {
    running: Instant,
    wall: SystemTime,
}

impl DevCa {
    pub(crate) const fn new(dir: PathBuf, id: SpiffeId) -> Self {
        Self {
            dir,
            id,
            due: None,
            backoff: Backoff::new(),
        }
    }

    async fn issue(&self) -> Result<Svid, Error> {
        let (dir, id) = (self.dir.clone(), self.id.clone());
        blocking(move || {
            Ca::open_or_create(&dir, id.trust_domain(), ROOT_LIFETIME)?.issue(&id, SVID_LIFETIME)
        })
        .await
    }
}

impl Source for DevCa {
    async fn next(&mut self) -> Result<Identity, Error> {
        if let Some(due) = &self.due {
            due.come().await;
        }
        let issued = self.issue().await;
        let wait = match &issued {
            Ok(svid) => {
                self.backoff.worked();
                let life = svid.not_after().duration_since(SystemTime::now());
                // At the end of the authority's own life, the halves become ever shorter.
                shortened(life.unwrap_or_default() / 2, 0.1).max(Duration::from_secs(1))
            }
            Err(_) => self.backoff.failed(),
        };
        self.due = Some(Due::after(wait));
        Ok(issued?.into())
    }
}

impl Due {
    fn after(wait: Duration) -> Self {
        Self {
            running: Instant::now() + wait,
            wall: SystemTime::now() + wait,
        }
    }

    async fn come(&self) {
        loop {
            let left = self.running.saturating_duration_since(Instant::now());
            if left.is_zero() || SystemTime::now() >= self.wall {
                return;
            }
            sleep(left.min(LOOK)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::testing::id;

    #[tokio::test(start_paused = true)]
    async fn the_development_ca_renews_at_half_life() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut source = DevCa::new(dir.path().join("not/yet/there"), id("web"));
        let started = Instant::now();
        let first = source.next().await.expect("first identity").svid;
        assert!(started.elapsed() < Duration::from_secs(1));
        let second = source.next().await.expect("second identity").svid;
        let waited = started.elapsed();
        assert!(waited <= SVID_LIFETIME / 2, "{waited:?}");
        assert!(waited >= SVID_LIFETIME.mul_f64(0.44), "{waited:?}");
        assert_eq!(first.id(), second.id());
        assert_ne!(first.chain(), second.chain());
        assert_eq!(first.bundle(), second.bundle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_is_tried_again_and_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut source = DevCa::new(dir.path().to_owned(), id("web"));
        source.next().await.expect("first identity");
        let root = dir.path().join("root.pem");
        let intact = fs::read(&root).expect("root");
        fs::write(&root, "damaged").expect("write");
        source.next().await.expect_err("half of its life is over");
        let started = Instant::now();
        source.next().await.expect_err("still damaged");
        let waited = started.elapsed();
        assert!(waited > Duration::from_millis(500) && waited < Duration::from_secs(2));
        fs::write(&root, intact).expect("write");
        source.next().await.expect("identity");
    }
}
