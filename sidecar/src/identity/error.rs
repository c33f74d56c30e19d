use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};

use super::WorkloadApiFault;
use crate::naming::ServiceAccount;

/// Why there is no identity. Each reads as one sentence that names the file and what to do, its
/// cause included; so none has a [`source`](std::error::Error::source) to be printed again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {error}; check the path and who may read it")]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}: {error}; choose a directory that this user may write to")]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is damaged PEM.
    #[error("cannot parse {path}: {fault}; replace it with an intact PEM file")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// How the syntax breaks.
        fault: &'static str,
    },
    /// What was looked for is not in a file.
    #[error("{path} holds {found} instead of a {wanted} in PEM form; give a file that has one")]
    Lacks {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What is there instead.
        found: &'static str,
    },
    /// A certificate is not one that this workload can use as its identity.
    #[error("the certificate in {path} {flaw}; {}", flaw.remedy())]
    Certificate {
        /// The file that holds the certificate.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A private key is of no supported kind, or damaged.
    #[error("the private key in {path} cannot be used; give an intact RSA, ECDSA or Ed25519 key")]
    Key {
        /// The file that holds the key.
        path: PathBuf,
    },
    /// Certificate and private key are not a pair.
    #[error(
        "the private key in {key} does not belong to the certificate in {certificate}; \
         give the two files that were issued together"
    )]
    KeyMismatch {
        /// The file that holds the certificate.
        certificate: PathBuf,
        /// The file that holds the key.
        key: PathBuf,
    },
    /// A trust bundle has a certificate that cannot serve as an authority.
    #[error("a certificate in the trust bundle {path} {flaw}; replace it with a CA certificate")]
    Authority {
        /// The trust bundle.
        path: PathBuf,
        /// What is wrong with the certificate.
        flaw: Flaw,
    },
    /// A revocation list cannot be used.
    #[error("a revocation list in {path} cannot be used ({fault}); replace it with an intact one")]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// What is wrong with the list.
        fault: webpki::Error,
    },
    /// A file is larger than anything that belongs into it.
    #[error("{path} is larger than {limit} MiB; check that it is the right file")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit, in MiB.
        limit: u64,
    },
    /// A service account has a name that no identity or file can have.
    #[error(
        "service account {account} has a name that cannot stand in a SPIFFE ID; give the pod another account"
    )]
    AccountName {
        /// The account.
        account: ServiceAccount,
    },
    /// A place for the identities of many was named to one workload.
    #[error(
        "{dir} holds identities of many service accounts, of which `sidecar node` gives each pod its own; for one workload set certificate, key and trust-bundle instead of identities"
    )]
    ManyWorkloads {
        /// The directory.
        dir: PathBuf,
    },
    /// An identity is that of somebody else.
    #[error(
        "what should identify {expected} identifies {found}; put the files of {expected} there, or set trust-domain to theirs"
    )]
    OfAnother {
        /// Whom it should identify.
        expected: SpiffeId,
        /// Whom it does.
        found: SpiffeId,
    },
    /// The identity of one workload was named for many.
    #[error(
        "{path} identifies one workload, and the pods of a node are many; set identities to a directory of theirs, or workload-api"
    )]
    OneWorkload {
        /// The certificate.
        path: PathBuf,
    },
    /// The Workload API gives no identity.
    #[error("the Workload API at {socket} {fault}")]
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        fault: WorkloadApiFault,
    },
    /// There is no development CA in the directory.
    #[error("{dir} holds no development CA; make one with `sidecar ca root --dir {dir}`")]
    NoCa {
        /// The directory.
        dir: PathBuf,
    },
    /// There is a development CA in the directory already.
    #[error("{dir} already holds a development CA; remove it or choose another directory")]
    CaExists {
        /// The directory.
        dir: PathBuf,
    },
    /// The root of a development CA is not what `sidecar ca root` makes, or is over.
    #[error("the development CA certificate {path} {flaw}; remove it to have a new one made")]
    Root {
        /// The root certificate.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// An identity was asked for that another trust domain has to issue.
    #[error(
        "the development CA in {dir} issues for trust domain {own}, which {id} is not in; \
         choose an identity that begins with spiffe://{own}/ or another directory"
    )]
    ForeignId {
        /// Where the authority lives.
        dir: PathBuf,
        /// What it issues for.
        own: TrustDomain,
        /// The identity that was asked for.
        id: SpiffeId,
    },
    /// Identities are wanted that another trust domain has to issue.
    #[error(
        "the development CA in {dir} issues for trust domain {own}, and not for {wanted}; \
         set trust-domain to {own} or choose another directory"
    )]
    ForeignDomain {
        /// Where the authority lives.
        dir: PathBuf,
        /// What it issues for.
        own: TrustDomain,
        /// What was wanted.
        wanted: TrustDomain,
    },
    /// An identity was asked for that is a whole trust domain.
    #[error("{id} names a trust domain and no workload in it; add a path, as in {id}/web")]
    NoWorkload {
        /// The identity that was asked for.
        id: SpiffeId,
    },
    /// The development CA could not make a certificate that holds.
    #[error("the development CA in {dir} cannot issue: {error}; check the lifetime and the clock")]
    Issue {
        /// Where the authority lives.
        dir: PathBuf,
        /// What failed.
        error: IssueError,
    },
}

/// Why a development CA could not issue.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate could not be encoded or signed.
    #[error(transparent)]
    Signing(#[from] rcgen::Error),
    /// The certificate was made, but does not stand its own check.
    #[error(transparent)]
    Svid(#[from] SvidError),
}

/// Why a certificate chain, a private key and a trust bundle make no [`Svid`](super::Svid).
#[derive(Debug, Clone, thiserror::Error)]
pub enum SvidError {
    /// The certificate is not one that this workload can use as its identity.
    #[error("the certificate {0}")]
    Certificate(Flaw),
    /// The private key is of no supported kind, or damaged.
    #[error("the private key is not an intact RSA, ECDSA or Ed25519 key")]
    Key,
    /// Certificate and private key are not a pair.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

impl From<Flaw> for SvidError {
    fn from(flaw: Flaw) -> Self {
        Self::Certificate(flaw)
    }
}

/// What is wrong with a certificate, one's own or a peer's. Reads as the end of a sentence whose
/// subject is the certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Flaw {
    /// It cannot be parsed, or there is none.
    #[error("is not a well-formed X.509 certificate")]
    Malformed,
    /// X509-SVID section 2.
    #[error("carries no URI name, where an X.509-SVID carries its SPIFFE ID")]
    NoUri,
    /// X509-SVID section 2.
    #[error("carries {0} URI names, where an X.509-SVID carries exactly one")]
    ManyUris(usize),
    /// SPIFFE-ID section 2. Control characters of the name are escaped, for it may be a peer's.
    #[error("carries the URI name {uri:?}, which is no SPIFFE ID: {error}")]
    NotSpiffe {
        /// The beginning of the URI.
        uri: String,
        /// What is wrong with it.
        error: SpiffeIdError,
    },
    /// X509-SVID section 3.1.
    #[error("names the trust domain {0} and no workload in it")]
    NoWorkload(TrustDomain),
    /// X509-SVID section 3.2.
    #[error("may sign other certificates, so it must not identify a workload")]
    Signing,
    /// X509-SVID section 4.3.
    #[error("may not make digital signatures")]
    NoDigitalSignature,
    /// Its RSA key has fewer bits than can be relied on.
    #[error("has an RSA key of {0} bits, where 2048 are the least")]
    ShortKey(usize),
    /// X509-SVID section 3.2, of a certificate that should be a development CA's root.
    #[error("is not a CA certificate that names its trust domain")]
    NoRoot,
    /// It, or one that it depends on, is over.
    #[error("expired at {0}")]
    Expired(Timestamp),
    /// It, or one that it depends on, has not begun.
    #[error("is not valid before {0}")]
    NotYetValid(Timestamp),
    /// No authority of the trust bundle issued it, by way of the other certificates it came with.
    #[error("is not issued by any authority in the trust bundle")]
    Untrusted,
    /// The authority that issued it has taken it back, or one that it depends on.
    #[error("is revoked by its authority")]
    Revoked,
    /// X509-SVID section 4.4.
    #[error("is not meant for both ends of TLS, as its extended key usage says")]
    WrongPurpose,
    /// It fails path validation (RFC 5280 section 6) in another way.
    #[error("does not verify: {0}")]
    Path(webpki::Error),
}

impl Flaw {
    /// What someone whose own certificate has this flaw should do.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Expired(_) => "renew it",
            Self::NotYetValid(_) => "check the clock of this machine",
            Self::Untrusted => {
                "add its issuer to the trust bundle, or its intermediates to the file"
            }
            _ => "give one that was issued as an X.509-SVID for a workload",
        }
    }
}

/// Path validation as webpki reports it.
impl From<webpki::Error> for Flaw {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;

        match error {
            E::BadDer | E::BadDerTime | E::TrailingData(_) => Self::Malformed,
            E::CertExpired { not_after, .. } => Self::Expired(timestamp(not_after.as_secs())),
            E::CertNotValidYet { not_before, .. } => {
                Self::NotYetValid(timestamp(not_before.as_secs()))
            }
            E::CertRevoked => Self::Revoked,
            // Two authorities may share a name; then it is the signature that tells them apart.
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::Untrusted,
            E::RequiredEkuNotFoundContext(_) => Self::WrongPurpose,
            error => Self::Path(error),
        }
    }
}

/// Certificates may be valid longer than time can be printed (RFC 5280 section 4.1.2.5).
fn timestamp(seconds: u64) -> Timestamp {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}
