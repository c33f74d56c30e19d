use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use spiffe::TrustDomain;
use tokio::sync::mpsc;

use super::files::{self, damaged, lacks};
use super::{Error, Revocations, TrustBundle, blocking};
use crate::changes::Changes;

/// Files that say whom to trust, beside what comes with the identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustFiles {
    /// The trust bundles of other trust domains, in PEM form.
    pub federated: BTreeMap<TrustDomain, PathBuf>,
    /// Certificate revocation lists, in PEM form.
    pub crls: Vec<PathBuf>,
}

/// What a file of [`TrustFiles`] is for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TrustFile {
    /// It holds revocation lists.
    Crl(PathBuf),
    /// It holds the trust bundle of this domain.
    Federated(TrustDomain, PathBuf),
}

/// What one of the files says.
#[derive(Debug)]
pub enum TrustContent {
    /// The authorities of another trust domain.
    Bundle(TrustBundle),
    /// What authorities have revoked.
    Revocations(Revocations),
}

/// What is new: files that say something else than before, and those that cannot be used.
pub type TrustNews = Vec<(TrustFile, Result<TrustContent, Error>)>;

impl TrustFiles {
    /// Refuses what can never be such a file, whatever is written later.
    pub fn check(&self) -> Result<(), Error> {
        files::refuse_directories(self.paths())
    }

    /// Reads the files now and when they may have changed, as long as somebody listens. Call it
    /// inside a runtime.
    pub fn follow(self) -> mpsc::Receiver<TrustNews> {
        let (sender, receiver) = mpsc::channel(1);
        let files = self.files();
        if !files.is_empty() {
            tokio::spawn(follow(files, sender));
        }
        receiver
    }

    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.crls
            .iter()
            .chain(self.federated.values())
            .map(PathBuf::as_path)
    }

    /// All of them, with what they are for.
    pub fn files(&self) -> Vec<TrustFile> {
        let crls = self.crls.iter().cloned().map(TrustFile::Crl);
        let federated = self.federated.iter();
        crls.chain(
            federated.map(|(domain, path)| TrustFile::Federated(domain.clone(), path.clone())),
        )
        .collect()
    }
}

impl TrustFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Crl(path) | Self::Federated(_, path) => path,
        }
    }

    /// The word for its kind in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Crl(_) => "crl",
            Self::Federated(..) => "federated_bundle",
        }
    }

    /// Reads it. Blocks on file access.
    pub fn load(&self) -> Result<TrustContent, Error> {
        self.parse(&files::read(self.path())?)
    }

    fn parse(&self, text: &[u8]) -> Result<TrustContent, Error> {
        match self {
            Self::Crl(path) => Ok(TrustContent::Revocations(revocations(path, text)?)),
            Self::Federated(_, path) => Ok(TrustContent::Bundle(TrustBundle::parse(path, text)?)),
        }
    }
}

/// Tells what is new as long as somebody listens. There is at least one file.
async fn follow(files: Vec<TrustFile>, news: mpsc::Sender<TrustNews>) {
    let mut changes = Changes::of(files.iter().map(TrustFile::path));
    let mut held: BTreeMap<TrustFile, Vec<u8>> = BTreeMap::new();
    loop {
        let (files, known) = (files.clone(), held);
        let (read, now_held) = blocking(move || read(files, known)).await;
        held = now_held;
        if !read.is_empty() && news.send(read).await.is_err() {
            return;
        }
        tokio::select! {
            () = changes.next() => {}
            () = news.closed() => return,
        }
    }
}

/// Reads those of `files` that no longer hold what they `held`.
fn read(
    files: Vec<TrustFile>,
    mut held: BTreeMap<TrustFile, Vec<u8>>,
) -> (TrustNews, BTreeMap<TrustFile, Vec<u8>>) {
    let mut news = TrustNews::new();
    for file in files {
        let content = match files::read(file.path()) {
            Ok(bytes) if held.get(&file).is_some_and(|held| **held == **bytes) => continue,
            Ok(bytes) => {
                let content = file.parse(&bytes);
                if content.is_ok() {
                    held.insert(file.clone(), bytes.to_vec());
                } else {
                    held.remove(&file);
                }
                content
            }
            Err(error) => {
                held.remove(&file);
                Err(error)
            }
        };
        news.push((file, content));
    }
    (news, held)
}

/// Every revocation list in the text of a PEM file; at least one.
fn revocations(path: &Path, text: &[u8]) -> Result<Revocations, Error> {
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, &error))?;
    if lists.is_empty() {
        return Err(lacks(path, "certificate revocation list", text));
    }
    Revocations::new(&lists).map_err(|fault| Error::RevocationList {
        path: path.to_owned(),
        fault,
    })
}
