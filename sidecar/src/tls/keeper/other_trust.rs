use std::{collections::BTreeMap, path::PathBuf};

use spiffe::TrustDomain;

use crate::identity::{
    Error, Identity, Revocations, Trust, TrustBundle, TrustContent, TrustFile, TrustFiles,
};

/// What the files beside the identity have said so far.
pub(super) struct OtherTrust {
    /// The bundles of other trust domains, as far as they could be read.
    federated: BTreeMap<TrustDomain, TrustBundle>,
    /// For each file of revocation lists what is known of it.
    lists: BTreeMap<PathBuf, Lists>,
}

/// What is known of one file of revocation lists.
#[derive(Default)]
struct Lists {
    /// What was used last.
    held: Option<Revocations>,
    /// What the file has said last. Whether its authorities signed that is judged anew whenever
    /// there may be other authorities: it may have come before them.
    said: Option<Revocations>,
}

/// Whom a workload trusts, and what was found on the way.
pub(super) struct Judgement {
    /// Nothing while it cannot be known: without the revocation lists too many would be trusted.
    pub(super) trust: Option<Trust>,
    /// The files that are refused.
    pub(super) refused: Vec<(TrustFile, Error)>,
    /// What to hold once this trust is in use.
    pub(super) lists: JudgedLists,
}

/// What is revoked under one judgement, file by file.
pub(super) struct JudgedLists(BTreeMap<PathBuf, Revocations>);

impl OtherTrust {
    /// Nothing has been read yet.
    pub(super) fn new(files: &TrustFiles) -> Self {
        let lists = files.crls.iter();
        Self {
            federated: BTreeMap::new(),
            lists: lists.map(|path| (path.clone(), Lists::default())).collect(),
        }
    }

    /// A file says something new.
    pub(super) fn take(&mut self, file: TrustFile, content: TrustContent) {
        match (file, content) {
            (TrustFile::Federated(domain, _), TrustContent::Bundle(bundle)) => {
                self.federated.insert(domain, bundle);
            }
            (TrustFile::Crl(path), TrustContent::Revocations(lists)) => {
                self.lists.entry(path).or_default().said = Some(lists);
            }
            _ => unreachable!("a file holds what it is for"),
        }
    }

    /// Whether something is known of this file that holds, whatever it says now.
    pub(super) fn holds(&self, file: &TrustFile) -> bool {
        match file {
            TrustFile::Federated(domain, _) => self.federated.contains_key(domain),
            TrustFile::Crl(path) => self
                .lists
                .get(path)
                .is_some_and(|lists| lists.held.is_some()),
        }
    }

    /// Whom a workload with this identity trusts.
    ///
    /// What is set by hand comes before what the source of the identity says. A list that is refused
    /// leaves the one before it in use, also when that is the same: better to refuse all whom it is
    /// held against than to trust who is revoked.
    pub(super) fn trust(&self, identity: &Identity) -> Judgement {
        let trust = Trust::of(&identity.svid)
            .with_federated(&self.federated)
            .with_federated(&identity.federated);
        let mut refused = Vec::new();
        let mut used = BTreeMap::new();
        for (path, lists) in &self.lists {
            let Some(said) = &lists.said else {
                continue;
            };
            let holds = match trust.fault_of(said) {
                None => Some(said),
                Some(fault) => {
                    let path = path.clone();
                    let error = Error::RevocationList {
                        path: path.clone(),
                        fault,
                    };
                    refused.push((TrustFile::Crl(path), error));
                    lists.held.as_ref()
                }
            };
            used.extend(holds.map(|holds| (path.clone(), holds.clone())));
        }
        let is_complete = used.len() == self.lists.len();
        Judgement {
            trust: is_complete.then(|| trust.without(all(used.values()))),
            refused,
            lists: JudgedLists(used),
        }
    }

    /// What was found is in use from now on.
    pub(super) fn hold(&mut self, lists: JudgedLists) {
        for (path, lists) in lists.0 {
            self.lists.entry(path).or_default().held = Some(lists);
        }
    }
}

/// Together.
fn all<'a>(lists: impl Iterator<Item = &'a Revocations>) -> Revocations {
    let mut all = Revocations::default();
    for lists in lists {
        all.extend(lists);
    }
    all
}
