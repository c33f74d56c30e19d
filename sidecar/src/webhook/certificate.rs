use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    version::TLS13,
};
use thiserror::Error;
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::changes::Changes;

/// A certificate that the webhook cannot show.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file has no PEM block of the kind.
    #[error("{path} has no {wanted} in PEM: {error}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is missed.
        wanted: &'static str,
        /// Why.
        error: pem::Error,
    },
    /// It is no X.509.
    #[error("{path} has no certificate that can be understood; write one in PEM")]
    Certificate {
        /// Which.
        path: PathBuf,
    },
    /// The two do not belong together, or no TLS can be spoken with them.
    #[error("{certificate} and {key} cannot be used together: {error}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
}

/// The webhook's certificate, in files that somebody renews.
#[derive(Clone)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    current: watch::Sender<Arc<Loaded>>,
}

/// As it was read last.
struct Loaded {
    server: Arc<ServerConfig>,
    expiry: Timestamp,
    chain: Vec<CertificateDer<'static>>,
}

impl Certificate {
    /// Reads the files.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let loaded = load(&certificate, &key)?;
        Ok(Self {
            chain_file: certificate,
            key_file: key,
            current: watch::Sender::new(Arc::new(loaded)),
        })
    }

    /// Reads the files again whenever they change, and says each time whether they could be used.
    /// If not, the certificate before stays.
    pub(super) async fn follow(&self, news: impl Fn(bool)) {
        let mut changes = Changes::of([&self.chain_file, &self.key_file]);
        loop {
            match load(&self.chain_file, &self.key_file) {
                Ok(loaded) if loaded.chain == self.current.borrow().chain => {}
                Ok(loaded) => {
                    tracing::info!("the webhook's certificate is valid until {}", loaded.expiry);
                    self.current.send_replace(Arc::new(loaded));
                    news(true);
                }
                Err(error) => {
                    tracing::warn!("the webhook's certificate stays what it was: {error}");
                    news(false);
                }
            }
            changes.next().await;
        }
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().server)
    }

    pub(super) fn is_expired(&self) -> bool {
        self.current.borrow().expiry <= Timestamp::now()
    }

    /// In seconds since the epoch.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds are exact for as long as calendars are"
    )]
    pub(super) fn expiry_timestamp(&self) -> f64 {
        self.current.borrow().expiry.as_second() as f64
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, CertificateError> {
    let lacks = |path: &Path, wanted| {
        let path = path.to_owned();
        move |error| CertificateError::Pem {
            path,
            wanted,
            error,
        }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(lacks(certificate, "certificate"))?;
    let unknown = || CertificateError::Certificate {
        path: certificate.to_owned(),
    };
    let leaf = chain.first().ok_or_else(unknown)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| unknown())?;
    let expiry =
        Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(lacks(key, "private key"))?;
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain.clone(), private)
        })
        .map_err(|error| CertificateError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            error,
        })?;
    Ok(Loaded {
        server: Arc::new(server),
        expiry,
        chain,
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| CertificateError::Read {
            path: path.to_owned(),
            error,
        })
}
