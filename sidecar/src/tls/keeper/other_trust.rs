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
    /// What holds.
    held: Option<Revocations>,
    /// What the file says now, while it is not known whether its authorities signed that.
    offered: Option<Revocations>,
}

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
                self.lists.entry(path).or_default().offered = Some(lists);
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

    /// Whom a workload with this identity trusts, or nothing while that cannot be known: without
    /// the revocation lists it would trust too many. And the files that are refused.
    ///
    /// What is set by hand comes before what the source of the identity says.
    pub(super) fn trust(
        &mut self,
        identity: &Identity,
    ) -> (Option<Trust>, Vec<(TrustFile, Error)>) {
        let trust = Trust::of(&identity.svid)
            .with_federated(&self.federated)
            .with_federated(&identity.federated);
        let mut refused = Vec::new();
        for (path, lists) in &mut self.lists {
            let Some(offered) = lists.offered.take() else {
                continue;
            };
            match trust.fault_of(&offered) {
                None => lists.held = Some(offered),
                Some(fault) => refused.push((
                    TrustFile::Crl(path.clone()),
                    Error::RevocationList {
                        path: path.clone(),
                        fault,
                    },
                )),
            }
        }
        (
            self.revocations().map(|lists| trust.without(lists)),
            refused,
        )
    }

    /// All that is revoked; `None` before each file could be read.
    fn revocations(&self) -> Option<Revocations> {
        let mut all = Revocations::default();
        for lists in self.lists.values() {
            all.extend(lists.held.as_ref()?);
        }
        Some(all)
    }
}
