use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::transport::Endpoint;
use spiffe::{
    SpiffeId, TrustDomain, WorkloadApiClient, WorkloadApiError, X509Bundle, X509Context, X509Svid,
};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt};

use super::{Backoff, Identity, Source};
use crate::identity::{Error, Svid, SvidError, TrustBundle};

/// How long the Workload API may take to answer for the first time. An agent answers at once, if
/// only that it has nothing for us.
const ANSWER: Duration = Duration::from_secs(10);

/// What comes from the Workload API, as long as the connection holds.
type Contexts = Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send>>;

/// The SPIFFE Workload API, as agents of SPIRE and others serve it on a Unix socket (SPIFFE Workload
/// API section 5.2).
///
/// One call gives the identity and then a new one each time there is one. When the call ends, it is
/// made again, later and later as long as nothing of use comes of it. Answers larger than 4 MiB are
/// refused by the gRPC library.
pub(crate) struct WorkloadApi {
    socket: PathBuf,
    /// The call, while it lasts.
    contexts: Option<Contexts>,
    /// How long to wait before the next one.
    wait: Duration,
    /// Spaces calls that fail.
    backoff: Backoff,
}

/// Why the Workload API gives no identity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WorkloadApiFault {
    /// It cannot be called, or has ended the call.
    #[error("does not answer ({0}); check that the agent runs and that its socket is mounted")]
    Broken(String),
    /// It has no identity for us.
    #[error("issues no identity to this workload; register it with the agent's server")]
    NotRegistered,
    /// It has identities for us, but not this one.
    #[error(
        "does not issue {0} to the agent of this node; register it with the agent's server, with selectors of the agent's own process, or set trust-domain to the one that is issued for"
    )]
    NoneFor(SpiffeId),
    /// It does not want to talk to us.
    #[error("refuses this workload ({0}); ask whoever runs the agent")]
    Refused(String),
    /// It says what does not make sense.
    #[error("gives an answer that cannot be used ({0}); see the log of the agent")]
    Unusable(String),
    /// It gives an identity that no peer would accept.
    #[error("gives an identity that cannot be used: {0}; correct its registration")]
    Svid(#[from] SvidError),
}

impl WorkloadApi {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            contexts: None,
            wait: Duration::ZERO,
            backoff: Backoff::new(),
        }
    }

    /// Asks once.
    pub(crate) fn peek(mut self) -> Result<Identity, Error> {
        let fault = |error: io::Error| Error::WorkloadApi {
            socket: self.socket.clone(),
            fault: WorkloadApiFault::Broken(error.to_string()),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(fault)?;
        runtime.block_on(self.next())
    }

    /// Waits for the next answer that can be read. Calls first if need be, and anew after a fault.
    pub(super) async fn answer<T>(
        &mut self,
        read: impl Fn(&X509Context) -> Result<T, WorkloadApiFault>,
    ) -> Result<T, WorkloadApiFault> {
        sleep(std::mem::take(&mut self.wait)).await;
        let answer = if self.contexts.is_some() {
            self.ask(read).await
        } else {
            let late = || WorkloadApiFault::Broken(format!("nothing came in {ANSWER:?}"));
            timeout(ANSWER, self.ask(read))
                .await
                .unwrap_or_else(|_| Err(late()))
        };
        if answer.is_ok() {
            self.backoff.worked();
        } else {
            self.contexts = None;
            self.wait = self.backoff.failed();
        }
        answer
    }

    async fn ask<T>(
        &mut self,
        read: impl Fn(&X509Context) -> Result<T, WorkloadApiFault>,
    ) -> Result<T, WorkloadApiFault> {
        let mut contexts = match self.contexts.take() {
            Some(contexts) => contexts,
            None => call(&self.socket).await?,
        };
        let context = match contexts.next().await {
            Some(context) => context?,
            None => return Err(WorkloadApiFault::Broken("it has ended the call".to_owned())),
        };
        let read = read(&context)?;
        self.contexts = Some(contexts);
        Ok(read)
    }
}

impl Source for WorkloadApi {
    async fn next(&mut self) -> Result<Identity, Error> {
        self.answer(default_identity)
            .await
            .map_err(|fault| Error::WorkloadApi {
                socket: self.socket.clone(),
                fault,
            })
    }
}

async fn call(socket: &Path) -> Result<Contexts, WorkloadApiFault> {
    let client = WorkloadApiClient::connect(Endpoint::Unix(socket.to_owned())).await?;
    Ok(Box::pin(client.stream_x509_contexts().await?))
}

/// The default identity, which is the first (SPIFFE Workload API section 5.3).
fn default_identity(context: &X509Context) -> Result<Identity, WorkloadApiFault> {
    let svid = context
        .default_svid()
        .ok_or_else(|| missing("the identity"))?;
    identity_of(svid, context)
}

fn missing(what: &str) -> WorkloadApiFault {
    WorkloadApiFault::Unusable(format!("{what} is missing"))
}

/// The identity of `svid`, and the bundles that came with it.
pub(super) fn identity_of(
    svid: &X509Svid,
    context: &X509Context,
) -> Result<Identity, WorkloadApiFault> {
    let own_domain = svid.spiffe_id().trust_domain();
    let mut own = None;
    let mut federated = BTreeMap::new();
    for (domain, bundle) in context.bundle_set().iter() {
        match trust_bundle(domain, bundle) {
            Ok(bundle) if domain == own_domain => own = Some(bundle),
            Ok(bundle) => {
                federated.insert(domain.clone(), bundle);
            }
            Err(fault) if domain == own_domain => {
                return Err(WorkloadApiFault::Unusable(fault));
            }
            // What is wrong with another domain takes nobody's own identity away.
            Err(fault) => tracing::warn!(
                "the Workload API gives a trust bundle that cannot be used ({fault}); until it gives another, workloads of {domain} are refused unless federated-bundles names one for it"
            ),
        }
    }
    let own = own.ok_or_else(|| missing("the own trust bundle"))?;
    let chain = svid.cert_chain().iter();
    let chain = chain.map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()));
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    Ok(Identity {
        svid: Svid::new(chain.collect(), key.into(), own)?,
        federated,
    })
}

/// The bundle of `domain`, or what is wrong with it.
fn trust_bundle(domain: &TrustDomain, bundle: &X509Bundle) -> Result<TrustBundle, String> {
    if bundle.authorities().is_empty() {
        return Err(format!("trust domain {domain} has no root"));
    }
    let authorities = bundle.authorities().iter();
    let authorities =
        authorities.map(|authority| CertificateDer::from(authority.as_bytes().to_vec()));
    TrustBundle::new(authorities.collect())
        .map_err(|flaw| format!("a root of trust domain {domain} {flaw}"))
}

impl From<WorkloadApiError> for WorkloadApiFault {
    fn from(error: WorkloadApiError) -> Self {
        match error {
            WorkloadApiError::NoIdentityIssued => Self::NotRegistered,
            WorkloadApiError::PermissionDenied(why) => Self::Refused(why),
            WorkloadApiError::Transport(error) => {
                // The cause that says most is the first one: what the system answered.
                let mut cause: &dyn std::error::Error = &error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                Self::Broken(match error.source() {
                    Some(_) => format!("{cause}"),
                    None => error.to_string(),
                })
            }
            error => Self::Unusable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
