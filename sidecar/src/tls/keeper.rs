mod other_trust;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use self::other_trust::OtherTrust;
use super::Tls;
use crate::{
    identity::{Error, Identity, Origin, Trust, TrustFile, TrustFiles, TrustNews},
    telemetry::Telemetry,
};

/// Follows `origin`, and the files that say whom else to trust, from now on. What they give appears
/// at the receiver once it was tried: new connections use it, and those that are open live on if
/// their peer is still trusted. Call it inside a runtime.
///
/// What cannot be used is logged and counted, and changes nothing: what was there before it stays.
pub fn keep(
    origin: Origin,
    files: TrustFiles,
    telemetry: Telemetry,
) -> watch::Receiver<Option<Arc<Tls>>> {
    let (publish, receiver) = watch::channel(None);
    let keeper = Keeper {
        label: origin.as_str(),
        identities: origin.follow(),
        others: OtherTrust::new(&files),
        heard: files.files().is_empty(),
        news: files.follow(),
        publish,
        telemetry,
        identity: None,
        trust: None,
        offered: None,
        failures: BTreeMap::new(),
        notices: Vec::new(),
    };
    tokio::spawn(keeper.run());
    receiver
}

/// Keeps the identity that connections use up to date, and whom they trust.
struct Keeper {
    /// What new identities come from, as metrics name it.
    label: &'static str,
    /// New identities, or why there is none.
    identities: mpsc::Receiver<Result<Identity, Error>>,
    /// What the files beside the identity say, when that is new.
    news: mpsc::Receiver<TrustNews>,
    /// What they have said so far.
    others: OtherTrust,
    /// Whether they were all looked at, if there are any. Until then nothing is published: whoever
    /// waits for an identity would refuse peers whom a bundle vouches for that is there to be read.
    heard: bool,
    /// Where connections find what to use.
    publish: watch::Sender<Option<Arc<Tls>>>,
    telemetry: Telemetry,
    /// The identity that was published last.
    identity: Option<Identity>,
    /// Whom it was published with. Kept while it is the same, for connections to know.
    trust: Option<Arc<Trust>>,
    /// An identity that was not tried yet.
    offered: Option<Identity>,
    /// What each source has last failed with, so that it is said once.
    failures: BTreeMap<PathBuf, String>,
    /// When there is something to tell, the next at the end.
    notices: Vec<(Instant, Notice)>,
}

/// Something that the passing of time brings about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Notice {
    /// A fifth of the time that was left when the identity came is left.
    Near,
    /// The identity has ended: peers refuse it.
    Past,
    /// A revocation list should have been replaced by now.
    Overdue,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let notice = self.notices.last().copied();
            tokio::select! {
                Some(next) = self.identities.recv() => match next {
                    Ok(identity) => {
                        self.offered = Some(identity);
                        self.update(false).await;
                    }
                    Err(error) => self.failed(&error),
                },
                Some(news) = self.news.recv() => self.hear(news).await,
                () = self.publish.closed() => return,
                Some(notice) = come(notice) => {
                    self.notices.pop();
                    self.tell(notice);
                }
            }
        }
    }

    /// Takes what the files beside the identity say.
    async fn hear(&mut self, news: TrustNews) {
        // The first news tell of every file, readable or not.
        let mut changed = !std::mem::replace(&mut self.heard, true);
        for (file, content) in news {
            match content {
                Ok(content) => {
                    self.failures.remove(file.path());
                    self.others.take(file, content);
                    changed = true;
                }
                Err(error) => self.file_failed(&file, &error),
            }
        }
        if changed {
            self.update(true).await;
        }
    }

    /// Publishes what is new: an identity, or whom to trust.
    async fn update(&mut self, trust_changed: bool) {
        if !self.heard {
            return;
        }
        let Some(identity) = self.offered.take().or_else(|| self.identity.clone()) else {
            return;
        };
        let is_new = !matches!(&self.identity, Some(old) if old.is(&identity));
        if !is_new && !trust_changed {
            self.failures.remove(Path::new(self.label));
            return;
        }
        let judgement = self.others.trust(&identity);
        for (file, error) in judgement.refused {
            self.file_failed(&file, &error);
        }
        let Some(trust) = judgement.trust else {
            // The lists that are missing come later, or the authorities of those that are there.
            self.offered = Some(identity);
            return;
        };
        let overdue = trust.overdue();
        let trust = match &self.trust {
            Some(known) if **known == trust => Arc::clone(known),
            _ => Arc::new(trust),
        };
        let tls = Tls::trusting(&identity.svid, Arc::clone(&trust));
        match tls.would_be_accepted().await {
            Ok(()) => {
                self.failures.remove(Path::new(self.label));
            }
            Err(refused) if is_new => {
                self.failed(&format!(
                    "peers would not accept the new identity: {refused}; have another issued"
                ));
                if trust_changed && self.identity.is_some() {
                    Box::pin(self.update(true)).await;
                }
                // Whoever is to be trusted next may accept it.
                self.offered = Some(identity);
                return;
            }
            // Whom to trust is not up to the own certificate.
            Err(refused) => tracing::error!(
                "peers that trust whom we trust do not accept the own identity any more: {refused}; have another issued"
            ),
        }
        self.telemetry.identity(tls.own(), tls.not_after());
        self.notices = notices(tls.not_after(), overdue);
        self.trust = Some(trust);
        self.others.hold(judgement.lists);
        self.publish.send_replace(Some(Arc::new(tls)));
        // Last: whoever hears of it finds the new identity at work.
        self.say(&identity);
        self.identity = Some(identity);
    }

    /// Logs what is new about an identity, and counts it.
    fn say(&self, new: &Identity) {
        let (id, until) = (new.svid.id(), timestamp(new.svid.not_after()));
        let Some(old) = &self.identity else {
            tracing::info!("the workload is {id}, until {until}");
            return;
        };
        if old.svid.chain() == new.svid.chain() {
            tracing::info!("whom to trust has changed");
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

    /// No identity came. What was taken before stays.
    fn failed(&mut self, error: &impl ToString) {
        let error = error.to_string();
        if !self.is_new_failure(self.label, Path::new(self.label), &error) {
            return;
        }
        let Some(identity) = &self.identity else {
            tracing::warn!(
                source = self.label,
                "{error}; until then the workload has no identity, and connections that need one wait"
            );
            return;
        };
        tracing::warn!(
            source = self.label,
            "{error}; until then the identity before it is used, which is valid until {}",
            timestamp(identity.svid.not_after())
        );
    }

    /// A file beside the identity cannot be used. What it said before stays.
    fn file_failed(&mut self, file: &TrustFile, error: &Error) {
        let error = error.to_string();
        if !self.is_new_failure(file.as_str(), file.path(), &error) {
            return;
        }
        let source = file.as_str();
        match file {
            _ if self.others.holds(file) => {
                tracing::warn!(source, "{error}; until then what it said before holds");
            }
            TrustFile::Crl(_) => tracing::warn!(
                source,
                "{error}; until then nobody knows who is revoked, and connections that need an identity wait"
            ),
            TrustFile::Federated(domain, _) => {
                tracing::warn!(
                    source,
                    "{error}; until then workloads of {domain} are refused"
                );
            }
        }
    }

    /// Counts a failure. Whether it is another than the last of this source.
    fn is_new_failure(&mut self, kind: &'static str, source: &Path, error: &str) -> bool {
        self.telemetry.identity_failed(kind);
        let known = self.failures.insert(source.to_owned(), error.to_owned());
        known.as_deref() != Some(error)
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
            Notice::Overdue => tracing::warn!(
                "a certificate revocation list is overdue; what it revokes stays revoked, but see to it that a new one comes"
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

/// When to tell of the end of an identity, and of revocation lists that are overdue from a time on.
fn notices(not_after: SystemTime, overdue: Option<SystemTime>) -> Vec<(Instant, Notice)> {
    let now = Instant::now();
    let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
    let life = left(not_after);
    let mut notices: Vec<_> = [
        (Some(life), Notice::Past),
        (Some(life.mul_f64(0.8)), Notice::Near),
        (overdue.map(left), Notice::Overdue),
    ]
    .into_iter()
    // Ends beyond what the clock can count are not waited for.
    .filter_map(|(wait, notice)| Some((now.checked_add(wait?)?, notice)))
    .collect();
    notices.sort_by_key(|(due, _)| Reverse(*due));
    notices
}

/// Certificates may be valid longer than time can be printed (RFC 5280 section 4.1.2.5).
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
