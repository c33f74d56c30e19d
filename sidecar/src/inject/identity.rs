use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde_json::{Value, json};
use spiffe::TrustDomain;

use super::container::USER;

/// Where identities are mounted.
const DIRECTORY: &str = "/var/run/secrets/sidecar";
/// Where the directory of the Workload API's socket is mounted.
const SOCKETS: &str = "/run/sidecar/workload-api";
/// The volume of either.
pub(super) const VOLUME: &str = "sidecar-identity";
/// Stands for the pod's service account in the name of a Secret.
const SERVICE_ACCOUNT: &str = "{service-account}";

/// cert-manager's driver for certificates of any kind.
const CERT_MANAGER: &str = "csi.cert-manager.io";
/// cert-manager's driver for SPIFFE identities alone.
const CERT_MANAGER_SPIFFE: &str = "spiffe.csi.cert-manager.io";
/// The driver that mounts the Workload API's socket.
const SPIFFE: &str = "csi.spiffe.io";

/// Where a sidecar's identity comes from.
///
/// Written `secret=NAME`, `csi=DRIVER[,ATTRIBUTE=VALUE…]`, `workload-api=PATH` or `dev-ca[=NAME]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentitySource {
    /// A Secret with `tls.crt`, `tls.key` and `ca.crt`. `{service-account}` in its name stands for
    /// the pod's service account.
    Secret(String),
    /// A CSI driver that mounts `tls.crt`, `tls.key` and `ca.crt`, or the Workload API's socket.
    Csi {
        /// Its name, such as `spiffe.csi.cert-manager.io`.
        driver: String,
        /// What is asked of it: attributes of the volume.
        attributes: BTreeMap<String, String>,
    },
    /// The socket of a SPIFFE Workload API, by its path on the node.
    WorkloadApi(PathBuf),
    /// A Secret with a development CA, `root.pem` and `root_key.pem`, from which each sidecar issues
    /// its own identity. Whoever has a sidecar may then be anybody.
    DevCa(String),
}

impl Default for IdentitySource {
    fn default() -> Self {
        Self::Secret(format!("sidecar-{SERVICE_ACCOUNT}"))
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "secret={name}"),
            Self::Csi { driver, attributes } => {
                write!(f, "csi={driver}")?;
                attributes
                    .iter()
                    .try_for_each(|(name, value)| write!(f, ",{name}={value}"))
            }
            Self::WorkloadApi(path) => write!(f, "workload-api={}", path.display()),
            Self::DevCa(name) => write!(f, "dev-ca={name}"),
        }
    }
}

impl FromStr for IdentitySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').unwrap_or((text, ""));
        let name = |value: &str| {
            let plain = value.replace(SERVICE_ACCOUNT, "x");
            if is_name(&plain) {
                Ok(value.to_owned())
            } else {
                Err(format!("{value:?} cannot be the name of a Secret"))
            }
        };
        match kind {
            "secret" => Ok(Self::Secret(name(value)?)),
            "csi" => csi(value),
            "workload-api" => {
                let path = PathBuf::from(value.strip_prefix("unix:").unwrap_or(value));
                let is_whole = path.is_absolute()
                    && path.file_name().is_some()
                    && !path.components().any(|part| part.as_os_str() == "..");
                if !is_whole {
                    return Err(format!(
                        "{value:?} is no path of a socket; write it from the root of the node on"
                    ));
                }
                Ok(Self::WorkloadApi(path))
            }
            "dev-ca" if value.is_empty() => Ok(Self::DevCa("sidecar-dev-ca".to_owned())),
            "dev-ca" => Ok(Self::DevCa(name(value)?)),
            _ => {
                Err("write secret=NAME, csi=DRIVER, workload-api=PATH or dev-ca[=NAME]".to_owned())
            }
        }
    }
}

fn csi(text: &str) -> Result<IdentitySource, String> {
    let mut parts = text.split(',');
    let driver = parts.next().unwrap_or_default();
    if !is_name(driver) {
        return Err(format!("{driver:?} cannot be the name of a CSI driver"));
    }
    let mut attributes = BTreeMap::new();
    for part in parts {
        let attribute = part.split_once('=').filter(|(name, _)| !name.is_empty());
        let Some((name, value)) = attribute else {
            return Err(format!(
                "{part:?} is no attribute of a CSI volume; write NAME=VALUE"
            ));
        };
        attributes.insert(name.to_owned(), value.to_owned());
    }
    if driver == CERT_MANAGER && !attributes.contains_key("issuer-name") {
        return Err(format!(
            "{CERT_MANAGER} has to know who issues; add ,issuer-name=NAME, and ,issuer-kind=ClusterIssuer if it is one"
        ));
    }
    Ok(IdentitySource::Csi {
        driver: driver.to_owned(),
        attributes,
    })
}

/// May an object be called this (RFC 1123, subdomains)?
pub(super) fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            let is_inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            label.bytes().all(|byte| is_inner(&byte))
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// What a source comes to in a pod.
pub(super) struct Mounted {
    /// The volume.
    pub(super) volume: Value,
    /// Where the sidecar sees it.
    pub(super) path: &'static str,
    /// The settings that find it there, by their keys.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl IdentitySource {
    /// What it comes to in a pod of this service account.
    pub(super) fn mounted(&self, trust_domain: &TrustDomain, service_account: &str) -> Mounted {
        let secret = |name: &str| {
            let name = name.replace(SERVICE_ACCOUNT, service_account);
            json!({"name": VOLUME, "secret": {"secretName": name}})
        };
        match self {
            Self::Secret(name) => Mounted {
                volume: secret(name),
                path: DIRECTORY,
                settings: files(),
            },
            Self::Csi { driver, attributes } if driver == SPIFFE => {
                let mut attributes = attributes.clone();
                let socket = attributes.remove("socket");
                let socket = socket.as_deref().unwrap_or("spire-agent.sock");
                Mounted {
                    volume: csi_volume(driver, &attributes),
                    path: SOCKETS,
                    settings: vec![("workload-api", format!("unix:{SOCKETS}/{socket}"))],
                }
            }
            Self::Csi { driver, attributes } => {
                let mut all = defaults(driver, trust_domain);
                all.extend(attributes.iter().map(|(name, value)| {
                    let prefix = if name.contains('/') { "" } else { driver };
                    let separator = if prefix.is_empty() { "" } else { "/" };
                    (format!("{prefix}{separator}{name}"), value.clone())
                }));
                Mounted {
                    volume: csi_volume(driver, &all),
                    path: DIRECTORY,
                    settings: files(),
                }
            }
            Self::WorkloadApi(path) => {
                let parent = path.parent().unwrap_or(path).to_string_lossy();
                let socket = path.file_name().unwrap_or_default().to_string_lossy();
                Mounted {
                    volume: json!({"name": VOLUME, "hostPath": {"path": parent, "type": "Directory"}}),
                    path: SOCKETS,
                    settings: vec![("workload-api", format!("unix:{SOCKETS}/{socket}"))],
                }
            }
            Self::DevCa(name) => Mounted {
                volume: secret(name),
                path: DIRECTORY,
                settings: vec![
                    ("dev-ca", DIRECTORY.to_owned()),
                    (
                        "identity",
                        format!(
                            "spiffe://{}/ns/$(SIDECAR_POD_NAMESPACE)/sa/$(SIDECAR_POD_SERVICE_ACCOUNT)",
                            trust_domain.as_str()
                        ),
                    ),
                ],
            },
        }
    }
}

fn files() -> Vec<(&'static str, String)> {
    [
        ("certificate", "tls.crt"),
        ("key", "tls.key"),
        ("trust-bundle", "ca.crt"),
    ]
    .map(|(key, file)| (key, format!("{DIRECTORY}/{file}")))
    .into()
}

fn csi_volume(driver: &str, attributes: &BTreeMap<String, String>) -> Value {
    let mut csi = json!({"driver": driver, "readOnly": true});
    if !attributes.is_empty() {
        csi["volumeAttributes"] = json!(attributes);
    }
    json!({"name": VOLUME, "csi": csi})
}

/// What cert-manager's drivers have to be asked for, so that a sidecar can use what they mount.
fn defaults(driver: &str, trust_domain: &TrustDomain) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut ask = |name: &str, value: String| all.insert(format!("{driver}/{name}"), value);
    if driver == CERT_MANAGER || driver == CERT_MANAGER_SPIFFE {
        ask("fs-group", USER.to_string());
    }
    if driver == CERT_MANAGER {
        ask(
            "uri-sans",
            format!(
                "spiffe://{}/ns/${{POD_NAMESPACE}}/sa/${{SERVICE_ACCOUNT_NAME}}",
                trust_domain.as_str()
            ),
        );
        ask(
            "key-usages",
            "digital signature,server auth,client auth".to_owned(),
        );
    }
    all
}
