use std::collections::BTreeMap;

use spiffe::TrustDomain;
use thiserror::Error;

use super::{
    container,
    identity::{self, IdentitySource},
    resources::{Resources, is_quantity},
};
use crate::{
    config::{self, Config, TrustDomainName},
    kubernetes::annotations::{self, AnnotationError, PREFIX},
};

/// The annotations below `sidecar.mesh/` that are no settings: they say what is added to the pod.
pub const ANNOTATIONS: &[&str] = &[
    "admin-port",
    "config-map",
    "cpu-limit",
    "cpu-request",
    "identity-source",
    "image",
    "inject",
    "memory-limit",
    "memory-request",
    "trust-domain",
    "validate",
];

/// Settings that follow from where a sidecar stands in a pod, with what decides about them instead.
const FIXED: &[(&str, &str)] = &[
    ("admin", "`admin-port` decides"),
    ("bpffs", "it is where the node's is mounted"),
    ("certificate", "`identity-source` decides"),
    ("cgroup", "it is the pod's"),
    ("dev-ca", "`identity-source` decides"),
    ("key", "`identity-source` decides"),
    ("netns", "it is the pod's"),
    ("trust-bundle", "`identity-source` decides"),
    ("workload-api", "`identity-source` decides"),
];

/// Where health and metrics are served, unless a pod says otherwise.
const ADMIN_PORT: u16 = 4195;
/// The lowest port that takes no capability.
const LOWEST: u16 = 1024;

/// What a user may choose of what is added to pods. Annotations of a pod win over it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Where health and metrics are served, on every address of the pod: the kubelet asks from outside.
    pub admin_port: u16,
    /// The image of all our containers.
    pub image: String,
    /// Where identities come from.
    pub identity: IdentitySource,
    /// The trust domain of identities that are made up here.
    pub trust_domain: TrustDomain,
    /// The `ConfigMap` whose `sidecar.yaml` holds settings.
    pub config_map: Option<String>,
    /// What each container asks for and may take.
    pub resources: Resources,
    /// Is it proved, before the app starts, that its connections are captured?
    pub validate: bool,
    /// Settings, by their keys, as text.
    pub settings: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin_port: ADMIN_PORT,
            image: concat!("sidecar:", env!("CARGO_PKG_VERSION")).to_owned(),
            identity: IdentitySource::default(),
            trust_domain: TrustDomain::new("sidecar.local").expect("a valid name"),
            config_map: None,
            resources: Resources::default(),
            validate: false,
            settings: BTreeMap::new(),
        }
    }
}

/// Options or annotations that cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// A setting that there is not, or that has no such value.
    #[error(transparent)]
    Setting(#[from] AnnotationError),
    /// An annotation of ours that is no setting.
    #[error("{PREFIX}{key}: {value:?} cannot be used: {reason}")]
    Option {
        /// Its name, without the prefix.
        key: &'static str,
        /// What it says.
        value: String,
        /// Why not, and what to write.
        reason: String,
    },
    /// A setting that is no choice in a pod.
    #[error("{PREFIX}{key} cannot be set for a sidecar in a pod: {reason}")]
    Fixed {
        /// The setting.
        key: &'static str,
        /// What decides instead.
        reason: &'static str,
    },
    /// Settings that do not go together.
    #[error("the settings cannot be used together: {0}")]
    Together(#[from] config::Error),
}

impl Options {
    /// These options with what a pod's annotations say over them. All is refused that `sidecar run`
    /// would refuse in the pod, as far as it can be told from here.
    pub fn with(&self, annotations: &BTreeMap<String, String>) -> Result<Self, OptionsError> {
        let mut options = self.clone();
        for (name, value) in annotations {
            let Some(key) = name.strip_prefix(PREFIX) else {
                continue;
            };
            match ANNOTATIONS.iter().find(|known| **known == key) {
                Some(key) => options.set(key, value)?,
                None => {
                    options.settings.insert(key.to_owned(), value.clone());
                }
            }
        }
        options.check()?;
        if let Some((key, request, limit)) = options.resources.contradiction() {
            return Err(OptionsError::Option {
                key,
                value: request.to_owned(),
                reason: format!("it is more than the limit, {limit}; change one of them"),
            });
        }
        Ok(options)
    }

    /// Sets what is no setting of the sidecar's.
    fn set(&mut self, key: &'static str, value: &str) -> Result<(), OptionsError> {
        let refuse = |reason: String| OptionsError::Option {
            key,
            value: value.to_owned(),
            reason,
        };
        let quantity = || {
            if is_quantity(value) {
                Ok(Some(value.to_owned()))
            } else if value == "none" {
                Ok(None)
            } else {
                Err(refuse(
                    "write a quantity, such as 100m of CPU or 64Mi of memory, or `none`".to_owned(),
                ))
            }
        };
        match key {
            "admin-port" => {
                let port = value.parse().ok().filter(|port| *port >= LOWEST);
                let advice = || refuse(format!("write a port from {LOWEST} on"));
                self.admin_port = port.ok_or_else(advice)?;
            }
            "config-map" if identity::is_name(value) => self.config_map = Some(value.to_owned()),
            "config-map" => return Err(refuse("it is no name of a ConfigMap".to_owned())),
            "cpu-limit" => self.resources.cpu_limit = quantity()?,
            "cpu-request" => self.resources.cpu_request = quantity()?,
            "identity-source" => self.identity = value.parse().map_err(refuse)?,
            "image" if value.trim().is_empty() => {
                return Err(refuse("name an image".to_owned()));
            }
            "image" => value.clone_into(&mut self.image),
            "memory-limit" => self.resources.memory_limit = quantity()?,
            "memory-request" => self.resources.memory_request = quantity()?,
            "trust-domain" => {
                let name = value.parse::<TrustDomainName>();
                self.trust_domain = name.map_err(|error| refuse(error.to_string()))?.0;
            }
            "validate" => {
                self.validate = value
                    .parse()
                    .map_err(|_| refuse("write `true` or `false`".to_owned()))?;
            }
            // Whether anything is added has been decided by now.
            _ => {}
        }
        Ok(())
    }

    /// Would `sidecar run` take the settings?
    pub fn check(&self) -> Result<(), OptionsError> {
        if let Some((key, reason)) = FIXED
            .iter()
            .find(|(key, _)| self.settings.contains_key(*key))
        {
            return Err(OptionsError::Fixed { key, reason });
        }
        let mounted = self.identity.mounted(&self.trust_domain, "x");
        let ours = mounted.settings.into_iter().map(|(key, value)| {
            // What Kubernetes puts there is a name as well.
            let value = value
                .replace("$(SIDECAR_POD_NAMESPACE)", "x")
                .replace("$(SIDECAR_POD_SERVICE_ACCOUNT)", "x");
            (key.to_owned(), value)
        });
        let all: BTreeMap<_, _> = ours
            .chain(self.settings.clone())
            .map(|(key, value)| (format!("{PREFIX}{key}"), value))
            .collect();
        Config::try_from(annotations::settings(&all, &[])?)?;
        Ok(())
    }

    /// The settings as environment variables. Nothing in them stands for another variable.
    pub(super) fn environment(&self) -> Vec<serde_json::Value> {
        self.settings
            .iter()
            .map(|(key, value)| container::variable(key, &value.replace("$(", "$$(")))
            .collect()
    }
}
