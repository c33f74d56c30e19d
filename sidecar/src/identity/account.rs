use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use spiffe::SpiffeId;
use tokio::sync::mpsc;

use super::source::{AllSvids, DevCa, Exactly, OneOfAll, PemFiles, follow};
use super::{Ca, Error, Files, Identity, ROOT_LIFETIME, SVID_LIFETIME, Svid};
use crate::changes::Tree;
use crate::naming::ServiceAccount;

/// The identity of one service account among many.
#[derive(Debug, Clone)]
pub struct Account {
    id: SpiffeId,
    issuer: Issuer,
}

/// What issues it.
#[derive(Debug, Clone)]
pub(super) enum Issuer {
    /// Whoever writes these files, in a tree that is watched as a whole.
    Directory(Files, Arc<Tree>),
    /// The development CA in this directory.
    DevCa(PathBuf),
    /// A Workload API that knows all of them.
    WorkloadApi(AllSvids),
}

impl Issuer {
    /// The files of `account` below `dir`; `None` if its names would lead elsewhere.
    pub(super) fn directory(dir: &Path, account: &ServiceAccount, tree: Arc<Tree>) -> Option<Self> {
        let names = [&*account.namespace, &*account.name];
        let is_one_step = |name: &&str| {
            let mut steps = Path::new(name).components();
            matches!((steps.next(), steps.next()), (Some(Component::Normal(step)), None) if step == *name)
        };
        if !names.iter().all(is_one_step) {
            return None;
        }
        let [namespace, name] = names;
        let files = Files::as_mounted(&dir.join(namespace).join(name));
        Some(Self::Directory(files, tree))
    }
}

impl Account {
    pub(super) const fn new(id: SpiffeId, issuer: Issuer) -> Self {
        Self { id, issuer }
    }

    /// Who its workloads are.
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.issuer {
            Issuer::Directory(files, _) => files.check_paths(),
            Issuer::DevCa(dir) => {
                Ca::open_or_create(dir, self.id.trust_domain(), ROOT_LIFETIME)?
                    .issue(&self.id, SVID_LIFETIME)?;
                Ok(())
            }
            Issuer::WorkloadApi(_) => Ok(()),
        }
    }

    pub(super) fn peek(&self) -> Result<Svid, Error> {
        match &self.issuer {
            Issuer::Directory(files, _) => {
                let svid = files.load()?;
                self.accept(svid.into()).map(|identity| identity.svid)
            }
            Issuer::DevCa(dir) => Ca::open(dir)?.issue(&self.id, SVID_LIFETIME),
            Issuer::WorkloadApi(svids) => svids.peek(&self.id).map(|identity| identity.svid),
        }
    }

    pub(super) const fn as_str(&self) -> &'static str {
        match self.issuer {
            Issuer::Directory(..) => "files",
            Issuer::DevCa(_) => "dev_ca",
            Issuer::WorkloadApi(_) => "workload_api",
        }
    }

    /// The files and the directories that following it reads.
    pub(super) fn reads(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        match &self.issuer {
            Issuer::Directory(files, _) => (files.paths().map(Clone::clone).into(), Vec::new()),
            Issuer::DevCa(dir) => (Vec::new(), vec![dir.clone()]),
            Issuer::WorkloadApi(_) => (Vec::new(), Vec::new()),
        }
    }

    pub(super) fn follow(self) -> mpsc::Receiver<Result<Identity, Error>> {
        let Self { id, issuer } = self;
        match issuer {
            Issuer::Directory(files, tree) => {
                follow(Exactly::new(id, PemFiles::in_tree(files, tree)))
            }
            Issuer::DevCa(dir) => follow(Exactly::new(id.clone(), DevCa::new(dir, id))),
            Issuer::WorkloadApi(svids) => {
                follow(Exactly::new(id.clone(), OneOfAll::new(svids, id)))
            }
        }
    }

    fn accept(&self, identity: Identity) -> Result<Identity, Error> {
        identity.of(&self.id)
    }
}

/// Two are the same if they name the same workloads: of one issuer there is one per daemon.
impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.as_str() == other.as_str() && self.reads() == other.reads()
    }
}

impl Eq for Account {}
