//! Places that identities come from.

mod all_svids;
mod backoff;
mod dev_ca;
mod exactly;
#[cfg(test)]
pub(super) mod fake_workload_api;
mod pem_files;
mod workload_api;

use std::collections::BTreeMap;

use spiffe::{SpiffeId, TrustDomain};
use tokio::sync::mpsc;

pub(crate) use self::backoff::Backoff;
pub use self::workload_api::WorkloadApiFault;
pub(super) use self::{
    all_svids::{AllSvids, OneOfAll},
    dev_ca::DevCa,
    exactly::Exactly,
    pem_files::PemFiles,
    workload_api::WorkloadApi,
};
use super::{Error, Svid, TrustBundle};

/// Gives the workload an identity, and a new one each time there is one.
pub trait Source: Send + 'static {
    /// Waits for the next identity. The first time, it is what the source has now.
    ///
    /// An error says why there is none at the moment. Called again, it waits until there is a
    /// reason to try again: sources have their own idea of when that is.
    fn next(&mut self) -> impl Future<Output = Result<Identity, Error>> + Send;
}

/// What a source gives: who the workload is, and whom else it can tell.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The workload's own certificate, key and trust bundle.
    pub svid: Svid,
    /// The trust bundles of other trust domains.
    pub federated: BTreeMap<TrustDomain, TrustBundle>,
}

impl Identity {
    /// Whether this says the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.svid.is(&other.svid) && self.federated == other.federated
    }

    /// Refuses that of anybody but `id`.
    pub(super) fn of(self, id: &SpiffeId) -> Result<Self, Error> {
        if self.svid.id() == id {
            return Ok(self);
        }
        Err(Error::OfAnother {
            expected: id.clone(),
            found: self.svid.id().clone(),
        })
    }
}

/// The identity of a source that knows no other trust domains.
impl From<Svid> for Identity {
    fn from(svid: Svid) -> Self {
        Self {
            svid,
            federated: BTreeMap::new(),
        }
    }
}

/// Asks `source` in a task of its own, as long as somebody listens. A source need not bear being
/// cancelled.
pub(super) fn follow(mut source: impl Source) -> mpsc::Receiver<Result<Identity, Error>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = source.next() => next,
                () = sender.closed() => return,
            };
            if sender.send(next).await.is_err() {
                return;
            }
        }
    });
    receiver
}
