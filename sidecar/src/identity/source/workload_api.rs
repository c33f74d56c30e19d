use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Bundle, X509Context};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt};

use super::{Backoff, Identity, Source};
use crate::identity::{Error, Flaw, Svid, SvidError, TrustBundle};

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
#[derive(Debug, thiserror::Error)]
pub enum WorkloadApiFault {
    /// It cannot be called, or has ended the call.
    #[error("does not answer ({0}); check that the agent runs and that its socket is mounted")]
    Broken(String),
    /// It has no identity for us.
    #[error("issues no identity to this workload; register it with the agent's server")]
    NotRegistered,
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

    /// Waits for the next answer, and calls first if need be.
    async fn ask(&mut self) -> Result<Identity, WorkloadApiFault> {
        let mut contexts = match self.contexts.take() {
            Some(contexts) => contexts,
            None => call(&self.socket).await?,
        };
        let context = match contexts.next().await {
            Some(context) => context?,
            None => return Err(WorkloadApiFault::Broken("it has ended the call".to_owned())),
        };
        let identity = identity(&context)?;
        self.contexts = Some(contexts);
        Ok(identity)
    }
}

impl Source for WorkloadApi {
    async fn next(&mut self) -> Result<Identity, Error> {
        sleep(std::mem::take(&mut self.wait)).await;
        let answer = if self.contexts.is_some() {
            self.ask().await
        } else {
            let late = || WorkloadApiFault::Broken(format!("nothing came in {ANSWER:?}"));
            timeout(ANSWER, self.ask())
                .await
                .unwrap_or_else(|_| Err(late()))
        };
        match answer {
            Ok(identity) => {
                self.backoff.worked();
                Ok(identity)
            }
            Err(fault) => {
                self.contexts = None;
                self.wait = self.backoff.failed();
                Err(Error::WorkloadApi {
                    socket: self.socket.clone(),
                    fault,
                })
            }
        }
    }
}

async fn call(socket: &Path) -> Result<Contexts, WorkloadApiFault> {
    let client = WorkloadApiClient::connect(Endpoint::Unix(socket.to_owned())).await?;
    Ok(Box::pin(client.stream_x509_contexts().await?))
}

/// The default identity, which is the first (SPIFFE Workload API section 5.3), and the bundles.
fn identity(context: &X509Context) -> Result<Identity, WorkloadApiFault> {
    let missing = |what: &str| WorkloadApiFault::Unusable(format!("{what} is missing"));
    let svid = context
        .default_svid()
        .ok_or_else(|| missing("the identity"))?;
    let mut bundles = BTreeMap::new();
    for (domain, bundle) in context.bundle_set().iter() {
        let bundle = trust_bundle(bundle).map_err(|flaw| {
            WorkloadApiFault::Unusable(format!("a root of trust domain {domain} {flaw}"))
        })?;
        bundles.insert(domain.clone(), bundle);
    }
    let own = bundles
        .remove(svid.spiffe_id().trust_domain())
        .ok_or_else(|| missing("the own trust bundle"))?;
    let chain = svid.cert_chain().iter();
    let chain = chain.map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()));
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    Ok(Identity {
        svid: Svid::new(chain.collect(), key.into(), own)?,
        federated: bundles,
    })
}

fn trust_bundle(bundle: &X509Bundle) -> Result<TrustBundle, Flaw> {
    let authorities = bundle.authorities().iter();
    let authorities =
        authorities.map(|authority| CertificateDer::from(authority.as_bytes().to_vec()));
    TrustBundle::new(authorities.collect())
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
