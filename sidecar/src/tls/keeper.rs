use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::Tls;
use crate::{
    identity::{Error, Identity, Origin, Trust},
    telemetry::Telemetry,
};

/// Follows `origin` from now on. What it gives appears at the receiver once it was tried: new
/// connections use it, and those that are open live on. Call it inside a runtime.
///
/// What cannot be used is logged and counted, and changes nothing: the identity before it stays.
pub fn keep(origin: Origin, telemetry: Telemetry) -> watch::Receiver<Option<Arc<Tls>>> {
    let (publish, receiver) = watch::channel(None);
    let keeper = Keeper {
        label: origin.as_str(),
        identities: origin.follow(),
        publish,
        telemetry,
        identity: None,
        failures: BTreeMap::new(),
        notices: Vec::new(),
    };
    tokio::spawn(keeper.run());
    receiver
}

/// Keeps the identity that connections use up to date.
struct Keeper {
    /// What new identities come from, as metrics name it.
    label: &'static str,
    /// New identities, or why there is none.
    identities: mpsc::Receiver<Result<Identity, Error>>,
    /// Where connections find the one to use.
    publish: watch::Sender<Option<Arc<Tls>>>,
    telemetry: Telemetry,
    /// What was published last.
    identity: Option<Identity>,
    /// What each source has last failed with, so that it is said once.
    failures: BTreeMap<&'static str, String>,
    /// When to tell of the end of the identity, the next at the end.
    notices: Vec<(Instant, Notice)>,
}

/// How close an identity is to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Notice {
    /// A fifth of the time that was left when it came is left.
    Near,
    /// It has ended: peers refuse it.
    Past,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let notice = self.notices.last().copied();
            tokio::select! {
                next = self.identities.recv() => match next {
                    Some(Ok(identity)) => self.take(identity).await,
                    Some(Err(error)) => self.failed(self.label, &error.to_string()),
                    None => return,
                },
                () = self.publish.closed() => return,
                Some(notice) = come(notice) => {
                    self.notices.pop();
                    self.tell(notice);
                }
            }
        }
    }

    /// Uses a new identity, if peers would.
    async fn take(&mut self, identity: Identity) {
        let trust = Trust::of(&identity.svid).with_federated(&identity.federated);
        let tls = Tls::trusting(&identity.svid, trust);
        if let Err(error) = tls.would_be_accepted().await {
            self.failed(
                self.label,
                &format!("peers would not accept the new identity: {error}; have another issued"),
            );
            return;
        }
        self.failures.remove(self.label);
        self.say(&identity);
        self.telemetry.identity(tls.own(), tls.not_after());
        self.notices = notices(tls.not_after());
        self.identity = Some(identity);
        self.publish.send_replace(Some(Arc::new(tls)));
    }

    /// Logs what is new about an identity, and counts it.
    fn say(&self, new: &Identity) {
        let (id, until) = (new.svid.id(), timestamp(new.svid.not_after()));
        let Some(old) = &self.identity else {
            tracing::info!("the workload is {id}, until {until}");
            return;
        };
        if old.svid.chain() == new.svid.chain() {
            tracing::info!("the trust bundle has changed");
            return;
        }
        self.telemetry.identity_rotated();
        if old.svid.id() == id {
            tracing::info!("the identity was renewed: the workload is {id}, until {until}");
        } else {
            tracing::warn!(
                "the identity has changed: the workload is {id}, until {until}, and was {}",
                old.svid.id()
            );
        }
    }

    /// Something is wrong with a source. What was taken before stays.
    fn failed(&mut self, source: &'static str, error: &str) {
        self.telemetry.identity_failed(source);
        let known = self.failures.insert(source, error.to_owned());
        if known.as_deref() == Some(error) {
            return;
        }
        match &self.identity {
            Some(identity) => tracing::warn!(
                "{error}; until then the identity before it is used, which is valid until {}",
                timestamp(identity.svid.not_after())
            ),
            None => tracing::warn!(
                "{error}; until then the workload has no identity, and connections that need one wait"
            ),
        }
    }

    fn tell(&self, notice: Notice) {
        let Some(identity) = &self.identity else {
            return;
        };
        let until = timestamp(identity.svid.not_after());
        match notice {
            Notice::Near => tracing::warn!(
                "the own certificate expires at {until}, and no new one has come; see to it that one does"
            ),
            Notice::Past => tracing::error!(
                "the own certificate expired at {until}, and peers refuse it; see to it that a new one comes"
            ),
        }
    }
}

/// Waits for a notice to be due; there may be none.
async fn come(notice: Option<(Instant, Notice)>) -> Option<Notice> {
    let (due, notice) = notice?;
    sleep_until(due).await;
    Some(notice)
}

/// When to tell of the end of an identity.
fn notices(not_after: SystemTime) -> Vec<(Instant, Notice)> {
    let now = Instant::now();
    let left = not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    // Ends beyond what the clock can count are not waited for.
    [(left, Notice::Past), (left.mul_f64(0.8), Notice::Near)]
        .into_iter()
        .filter_map(|(wait, notice)| Some((now.checked_add(wait)?, notice)))
        .collect()
}

/// Certificates may be valid longer than time can be printed (RFC 5280 section 4.1.2.5).
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
