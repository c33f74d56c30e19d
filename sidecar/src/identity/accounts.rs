use std::path::PathBuf;
use std::sync::Arc;

use spiffe::TrustDomain;

use super::account::{Account, Issuer};
use super::source::AllSvids;
use super::{Error, Origin};
use crate::changes::Tree;
use crate::naming::ServiceAccount;

/// Identities for the workloads of many service accounts, from one place: what the agent of a node
/// gives its pods.
#[derive(Debug, Clone)]
pub struct Accounts {
    trust_domain: TrustDomain,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf, Arc<Tree>),
    DevCa(PathBuf),
    WorkloadApi(AllSvids),
}

impl Accounts {
    /// Identities in this trust domain. Refuses an origin that knows one workload only, and what
    /// nobody else will put right while we wait.
    ///
    /// Call it inside a runtime that lasts as long as identities are wanted. Blocks on file access.
    pub fn new(origin: &Origin, trust_domain: TrustDomain) -> Result<Self, Error> {
        let place = match origin {
            Origin::Accounts(dir) => Place::Directory(dir.clone(), Arc::new(Tree::new(dir))),
            Origin::DevCa { dir, .. } => Place::DevCa(dir.clone()),
            Origin::WorkloadApi(socket) => Place::WorkloadApi(AllSvids::follow(socket.clone())),
            Origin::Files(files) => {
                return Err(Error::OneWorkload {
                    path: files.certificate.clone(),
                });
            }
            Origin::Account(account) => {
                return Err(Error::OneWorkload {
                    path: account.id().to_string().into(),
                });
            }
        };
        let accounts = Self {
            trust_domain,
            place,
        };
        if let Place::DevCa(dir) = &accounts.place {
            super::Ca::open_or_create(dir, &accounts.trust_domain, super::ROOT_LIFETIME)?
                .check_domain(&accounts.trust_domain)?;
        }
        Ok(accounts)
    }

    /// Where the identity of one service account comes from. It is that of no other: what names
    /// another is refused, whoever issued it.
    pub fn origin(&self, account: &ServiceAccount) -> Result<Origin, Error> {
        let name = || Error::AccountName {
            account: account.clone(),
        };
        // Whatever can stand in an identity is the name of a file and leads nowhere else.
        let id = account.identity(&self.trust_domain).ok_or_else(name)?;
        let issuer = match &self.place {
            Place::Directory(dir, tree) => {
                Issuer::directory(dir, account, Arc::clone(tree)).ok_or_else(name)?
            }
            Place::DevCa(dir) => Issuer::DevCa(dir.clone()),
            Place::WorkloadApi(svids) => Issuer::WorkloadApi(svids.clone()),
        };
        Ok(Origin::Account(Account::new(id, issuer)))
    }

    /// The trust domain of all of them.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

#[cfg(test)]
mod tests;
