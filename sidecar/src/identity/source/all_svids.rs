use std::path::PathBuf;
use std::sync::Arc;

use spiffe::{SpiffeId, X509Context};
use tokio::sync::watch;

use super::workload_api::{WorkloadApi, WorkloadApiFault, identity_of};
use super::{Identity, Source};
use crate::identity::Error;

/// What a Workload API issues to us, for many who each want one of its identities: one call for all.
#[derive(Debug, Clone)]
pub(crate) struct AllSvids {
    socket: Arc<PathBuf>,
    heard: watch::Receiver<Heard>,
}

/// What the Workload API has said so far.
#[derive(Debug, Default)]
struct Heard {
    /// All identities, as long as they are ours.
    svids: Option<Arc<X509Context>>,
    /// Why nothing newer has come.
    fault: Option<WorkloadApiFault>,
}

impl AllSvids {
    /// Calls it as long as somebody listens. Call it inside a runtime.
    pub(crate) fn follow(socket: PathBuf) -> Self {
        let (sender, heard) = watch::channel(Heard::default());
        let mut api = WorkloadApi::new(socket.clone());
        tokio::spawn(async move {
            loop {
                let answer = tokio::select! {
                    answer = api.answer(|svids| Ok(Arc::new(svids.clone()))) => answer,
                    () = sender.closed() => return,
                };
                sender.send_modify(|heard| heard.take(answer));
            }
        });
        Self {
            socket: Arc::new(socket),
            heard,
        }
    }

    /// The identity `id` out of what was said last.
    pub(crate) fn peek(&self, id: &SpiffeId) -> Result<Identity, Error> {
        self.told(self.heard.borrow().of(id))
    }

    fn told(&self, told: Result<Identity, WorkloadApiFault>) -> Result<Identity, Error> {
        told.map_err(|fault| Error::WorkloadApi {
            socket: self.socket.to_path_buf(),
            fault,
        })
    }
}

impl Heard {
    fn take(&mut self, answer: Result<Arc<X509Context>, WorkloadApiFault>) {
        match answer {
            Ok(svids) => {
                *self = Self {
                    svids: Some(svids),
                    fault: None,
                }
            }
            Err(fault) => {
                // An agent that is gone has taken nothing back; one that refuses us has.
                if matches!(
                    fault,
                    WorkloadApiFault::NotRegistered | WorkloadApiFault::Refused(_)
                ) {
                    self.svids = None;
                }
                self.fault = Some(fault);
            }
        }
    }

    const fn is_nothing(&self) -> bool {
        self.svids.is_none() && self.fault.is_none()
    }

    /// What the last answer means for `id`.
    fn news_of(&self, id: &SpiffeId) -> Result<Identity, WorkloadApiFault> {
        match &self.fault {
            Some(WorkloadApiFault::NotRegistered) | None => self.of(id),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// The identity `id`, if it is still ours, or why it is not there.
    fn of(&self, id: &SpiffeId) -> Result<Identity, WorkloadApiFault> {
        match (&self.svids, &self.fault) {
            (Some(svids), _) => {
                let mut all = svids.svids().iter();
                let svid = all
                    .find(|svid| svid.spiffe_id() == id)
                    .ok_or_else(|| WorkloadApiFault::NoneFor(id.clone()))?;
                identity_of(svid, svids)
            }
            (None, Some(WorkloadApiFault::NotRegistered)) => {
                Err(WorkloadApiFault::NoneFor(id.clone()))
            }
            (None, Some(fault)) => Err(fault.clone()),
            (None, None) => Err(WorkloadApiFault::Broken("nothing has come yet".to_owned())),
        }
    }
}

/// One of the identities that a Workload API issues to us.
pub(crate) struct OneOfAll {
    all: AllSvids,
    id: SpiffeId,
    is_first: bool,
}

impl OneOfAll {
    pub(crate) const fn new(all: AllSvids, id: SpiffeId) -> Self {
        Self {
            all,
            id,
            is_first: true,
        }
    }
}

impl Source for OneOfAll {
    async fn next(&mut self) -> Result<Identity, Error> {
        let heard = &mut self.all.heard;
        if std::mem::take(&mut self.is_first) {
            let first = heard.wait_for(|heard| !heard.is_nothing()).await;
            if let Ok(told) = first.map(|heard| heard.of(&self.id)) {
                return self.all.told(told);
            }
        }
        // Whoever called may be gone, and the runtime that it was in.
        if heard.changed().await.is_err() {
            return std::future::pending().await;
        }
        let told = heard.borrow_and_update().news_of(&self.id);
        self.all.told(told)
    }
}
