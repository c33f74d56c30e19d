use std::path::{Path, PathBuf};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use thiserror::Error;

use super::health::Health;

/// How to ask the API server, and how that goes. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) kube: kube::Client,
    /// How asking goes.
    pub health: Health,
}

/// Why there is no way to ask the API server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The file cannot be used.
    #[error("cannot use the kubeconfig {path}: {source}; name another or correct it", path = path.display())]
    Kubeconfig {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// This is no pod, or one without a token.
    #[error(
        "cannot tell from the environment how to ask the Kubernetes API: {0}; run in a pod that has a service account's token, or name a kubeconfig"
    )]
    InCluster(#[from] InClusterError),
    /// Nothing tells whose certificates to trust.
    #[error(
        "cannot ask the Kubernetes API at {url}: the kubeconfig {path} names no CA, and this machine has none that it trusts: {source}; set certificate-authority or certificate-authority-data of the cluster", path = path.display()
    )]
    NoAuthority {
        /// Where it is.
        url: String,
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong.
        source: kube::Error,
    },
    /// What was given does not fit together.
    #[error(
        "cannot ask the Kubernetes API at {url}: {source}; check the address and the certificates"
    )]
    Client {
        /// Where it is.
        url: String,
        /// What is wrong.
        source: kube::Error,
    },
}

impl Client {
    /// By a kubeconfig, or as a pod does: by the environment and the token of its service account.
    /// Nothing is asked yet. Call it in a runtime of tokio's.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        let mut config = match kubeconfig {
            Some(path) => from_file(path).await?,
            None => kube::Config::incluster()?,
        };
        // Whoever asks spaces attempts by itself, and says so.
        config.default_retry = false;
        let url = config.cluster_url.to_string();
        let trusts_the_machine = config.root_cert.is_none();
        if trusts_the_machine && !verifies(&config) {
            // Or else those of the machine are looked for, in vain where there are none.
            config.root_cert = Some(Vec::new());
        }
        let kube = kube::Client::try_from(config).map_err(|source| match kubeconfig {
            Some(path) if trusts_the_machine => ConnectError::NoAuthority {
                url,
                path: path.to_owned(),
                source,
            },
            _ => ConnectError::Client { url, source },
        })?;
        Ok(Self {
            kube,
            health: Health::default(),
        })
    }
}

/// Is the API server to show a certificate that somebody vouches for?
fn verifies(config: &kube::Config) -> bool {
    config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs
}

async fn from_file(path: &Path) -> Result<kube::Config, ConnectError> {
    let kubeconfig = Kubeconfig::read_from(path);
    let parsed = match kubeconfig {
        Ok(parsed) => {
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await
        }
        Err(error) => Err(error),
    };
    parsed.map_err(|source| ConnectError::Kubeconfig {
        path: path.to_owned(),
        source,
    })
}
