use std::path::PathBuf;

use spiffe::SpiffeId;
use tokio::sync::mpsc;

use super::source::{DevCa, PemFiles, WorkloadApi, follow};
use super::{Ca, Error, Files, Identity, ROOT_LIFETIME, SVID_LIFETIME, Svid};

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
        }
    }

    /// Takes an identity to look at, and leaves no trace. Blocks on file access and on the Workload
    /// API; call it outside any runtime.
    pub fn peek(&self) -> Result<Svid, Error> {
        match self {
            Self::Files(files) => files.load(),
            Self::DevCa { dir, id } => Ca::open(dir)?.issue(id, SVID_LIFETIME),
            Self::WorkloadApi(socket) => Ok(WorkloadApi::new(socket.clone()).peek()?.svid),
        }
    }

    /// The word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::DevCa { .. } => "dev_ca",
            Self::WorkloadApi(_) => "workload_api",
        }
    }

    /// Takes identities from it, one after the other, as long as somebody listens. Call it inside a
    /// runtime.
    pub fn follow(self) -> mpsc::Receiver<Result<Identity, Error>> {
        match self {
            Self::Files(files) => follow(PemFiles::new(files)),
            Self::DevCa { dir, id } => follow(DevCa::new(dir, id)),
            Self::WorkloadApi(socket) => follow(WorkloadApi::new(socket)),
        }
    }
}
