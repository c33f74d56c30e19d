use std::path::{Path, PathBuf};

use spiffe::SpiffeId;
use tokio::sync::mpsc;

use super::source::{DevCa, PemFiles, WorkloadApi, follow};
use super::{Account, Ca, Error, Files, Identity, ROOT_LIFETIME, SVID_LIFETIME, Source, Svid};

/// What to take an identity from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// PEM files that something else issued and renews.
    Files(Files),
    /// A certificate authority in a directory, made on first use. Workloads that share the
    /// directory trust each other, so whoever can read it can be any of them.
    DevCa {
        /// Where the authority lives.
        dir: PathBuf,
        /// The identity to have issued. Its trust domain becomes that of a new authority.
        id: SpiffeId,
    },
    /// The SPIFFE Workload API on this Unix socket.
    WorkloadApi(PathBuf),
    /// A directory of PEM files of many service accounts, `NAMESPACE/NAME/tls.crt` and so on: for
    /// [`Accounts`](super::Accounts), which has one of the next kind for each.
    Accounts(PathBuf),
    /// One service account among many.
    Account(Account),
}

impl Origin {
    /// Refuses what nobody else will put right while we wait: a path that is no file, a development
    /// CA that cannot issue. Files that are missing or damaged may yet come. Blocks on file access.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Files(files) => files.check_paths(),
            Self::DevCa { dir, id } => {
                Ca::open_or_create(dir, id.trust_domain(), ROOT_LIFETIME)?
                    .issue(id, SVID_LIFETIME)?;
                Ok(())
            }
            // An agent may come later than its workloads.
            Self::WorkloadApi(_) => Ok(()),
            Self::Accounts(dir) => Err(many(dir)),
            Self::Account(account) => account.check(),
        }
    }

    /// Takes an identity to look at, and leaves no trace. Blocks on file access and on the Workload
    /// API; call it outside any runtime.
    pub fn peek(&self) -> Result<Svid, Error> {
        match self {
            Self::Files(files) => files.load(),
            Self::DevCa { dir, id } => Ca::open(dir)?.issue(id, SVID_LIFETIME),
            Self::WorkloadApi(socket) => Ok(WorkloadApi::new(socket.clone()).peek()?.svid),
            Self::Accounts(dir) => Err(many(dir)),
            Self::Account(account) => account.peek(),
        }
    }

    /// The word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Files(_) | Self::Accounts(_) => "files",
            Self::DevCa { .. } => "dev_ca",
            Self::WorkloadApi(_) => "workload_api",
            Self::Account(account) => account.as_str(),
        }
    }

    /// The files and the directories that following it reads. A socket is connected to, not opened.
    pub fn reads(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        match self {
            Self::Files(files) => (files.paths().map(Clone::clone).into(), Vec::new()),
            Self::DevCa { dir, .. } | Self::Accounts(dir) => (Vec::new(), vec![dir.clone()]),
            Self::WorkloadApi(_) => (Vec::new(), Vec::new()),
            Self::Account(account) => account.reads(),
        }
    }

    /// Takes identities from it, one after the other, as long as somebody listens. Call it inside a
    /// runtime.
    pub fn follow(self) -> mpsc::Receiver<Result<Identity, Error>> {
        match self {
            Self::Files(files) => follow(PemFiles::new(files)),
            Self::DevCa { dir, id } => follow(DevCa::new(dir, id)),
            Self::WorkloadApi(socket) => follow(WorkloadApi::new(socket)),
            Self::Accounts(dir) => follow(Nobody(dir)),
            Self::Account(account) => account.follow(),
        }
    }
}

fn many(dir: &Path) -> Error {
    Error::ManyWorkloads {
        dir: dir.to_owned(),
    }
}

/// A directory of identities, of which nobody has said which one to take.
struct Nobody(PathBuf);

impl Source for Nobody {
    async fn next(&mut self) -> Result<Identity, Error> {
        Err(many(&self.0))
    }
}
