use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{
    addition::Addition,
    container::{self, Parts, has_our_name, has_our_volumes_name, is_our_volume, is_ours, on_port},
    options::{Options, OptionsError},
    probes,
};
use crate::kubernetes::{Enrolment, LABEL, annotations::PREFIX};

/// What becomes of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is given a sidecar.
    Inject(Addition),
    /// It is left as it is.
    Skip(Reason),
}

/// Why a pod is left as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It says so.
    Disabled,
    /// It does not ask for a sidecar.
    NotAsked,
    /// The agent of its node captures it.
    Node,
    /// It shares the network of its node, where a sidecar would capture what is not the pod's.
    HostNetwork,
    /// Capabilities in a user namespace of its own do not let `sidecar init` attach anything.
    UserNamespace,
    /// It runs on Windows.
    Windows,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "sidecar.mesh/inject says so",
            Self::NotAsked => "sidecar.mesh/inject does not ask for it",
            Self::Node => "the agent of its node captures it",
            Self::HostNetwork => "hostNetwork: it shares the network of its node",
            Self::UserNamespace => {
                "hostUsers: false: in a user namespace of its own, nothing can be attached"
            }
            Self::Windows => "it runs on Windows",
        })
    }
}

/// A pod that cannot be given a sidecar.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// It has no containers.
    #[error("it has no pod with containers; see `kubectl explain pod.spec.containers`")]
    NoPod,
    /// Its label says something that nobody understands.
    #[error("{LABEL}: {0:?} cannot be used; write enabled, node or disabled")]
    Inject(String),
    /// Its annotations cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// It has something of its own that is called like ours.
    #[error("it has a {what} of its own called {name}, as ours is; call it something else")]
    NameTaken {
        /// `container` or `volume`.
        what: &'static str,
        /// What it is called.
        name: String,
    },
    /// It is to listen where its sidecar does.
    #[error(
        "its container {container} declares port {port}, on which its sidecar would tell of its health; give the sidecar another one by the annotation {PREFIX}admin-port"
    )]
    PortTaken {
        /// What the container is called.
        container: String,
        /// Which.
        port: u16,
    },
    /// What is written on the object that makes pods does not reach them.
    #[error(
        "{name} stands in the {kind} of the object that makes the pods; write it to those of the pod's template"
    )]
    Misplaced {
        /// `annotations` or `labels`.
        kind: &'static str,
        /// Which.
        name: String,
    },
}

/// What is done with pods that do not say whether they want a sidecar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unasked {
    /// They get one.
    Inject,
    /// They get none.
    Skip,
}

/// Decides about a pod, or a template of pods: an object with `metadata` and `spec`.
pub fn decide(
    template: &Value,
    options: &Options,
    unasked: Unasked,
) -> Result<Decision, TemplateError> {
    let metadata = &template["metadata"];
    let spec = &template["spec"];
    let annotations = strings(&metadata["annotations"]);
    let labels = strings(&metadata["labels"]);
    for said in [annotations.get(LABEL), labels.get(LABEL)]
        .into_iter()
        .flatten()
    {
        if !["enabled", "node", "disabled"].contains(&said.as_str()) {
            return Err(TemplateError::Inject(said.clone()));
        }
    }
    let says = |word: &str| {
        let said = [annotations.get(LABEL), labels.get(LABEL)];
        said.into_iter().flatten().any(|said| said == word)
    };
    if says("disabled") {
        return Ok(Decision::Skip(Reason::Disabled));
    }
    if Enrolment::of(labels.get(LABEL).map(String::as_str)) == Enrolment::Node || says("node") {
        return Ok(Decision::Skip(Reason::Node));
    }
    if unasked == Unasked::Skip && !says("enabled") {
        return Ok(Decision::Skip(Reason::NotAsked));
    }
    let unfit = [
        (spec["hostNetwork"] == true, Reason::HostNetwork),
        (spec["hostUsers"] == false, Reason::UserNamespace),
        (spec["os"]["name"] == "windows", Reason::Windows),
    ];
    if let Some((_, reason)) = unfit.into_iter().find(|(is_unfit, _)| *is_unfit) {
        return Ok(Decision::Skip(reason));
    }
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err(TemplateError::NoPod);
    }
    refuse_names(spec)?;
    let options = options.with(&annotations)?;
    let port = options.admin_port;
    if let Some(container) = on_port(spec, port) {
        let container = container.to_owned();
        return Err(TemplateError::PortTaken { container, port });
    }
    Ok(Decision::Inject(addition(spec, &options)))
}

/// What is added to this pod.
fn addition(spec: &Value, options: &Options) -> Addition {
    let account = spec["serviceAccountName"]
        .as_str()
        .or_else(|| spec["serviceAccount"].as_str())
        .filter(|account| !account.is_empty())
        .unwrap_or("default");
    let mut settings = options.environment();
    settings.extend(probe_settings(spec, options));
    let parts = Parts {
        options,
        identity: options.identity.mounted(&options.trust_domain, account),
        settings,
    };
    Addition {
        init_containers: parts.containers(),
        volumes: parts.volumes(),
    }
}

/// How the node's own questions are told from other connections: by the ports, and by who asks.
///
/// What the pod's author has said of the one says nothing of the other.
fn probe_settings(spec: &Value, options: &Options) -> Vec<Value> {
    const PORTS: &str = "probe-ports";
    const SOURCES: &str = "probe-sources";
    let is_said = |key| options.settings.contains_key(key);
    let ports: Vec<_> = probes::ports(&without_ours(spec))
        .into_iter()
        .map(|port| port.to_string())
        .collect();
    let mut settings = Vec::new();
    if !is_said(PORTS) && !ports.is_empty() {
        settings.push(container::variable(PORTS, &ports.join(",")));
    }
    if !is_said(SOURCES) && (is_said(PORTS) || !ports.is_empty()) {
        settings.push(json!({
            "name": container::name(SOURCES),
            "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}},
        }));
    }
    settings
}

/// The pod as its author wrote it.
fn without_ours(spec: &Value) -> Value {
    Addition::default().apply(spec)
}

fn refuse_names(spec: &Value) -> Result<(), TemplateError> {
    let all = |list: &str| spec[list].as_array().cloned().unwrap_or_default();
    let init = all("initContainers")
        .into_iter()
        .filter(|one| !is_ours(one));
    let mut containers = all("containers").into_iter().chain(init);
    let taken = |what, named: &Value| TemplateError::NameTaken {
        what,
        name: named["name"].as_str().unwrap_or_default().to_owned(),
    };
    if let Some(container) = containers.find(has_our_name) {
        return Err(taken("container", &container));
    }
    let is_anothers =
        |volume: &&Value| has_our_volumes_name(volume) && !is_our_volume(volume, spec);
    match all("volumes").iter().find(is_anothers) {
        Some(volume) => Err(taken("volume", volume)),
        None => Ok(()),
    }
}

/// A map of strings, as labels and annotations are. What is no string is left to the API server to
/// refuse.
fn strings(map: &Value) -> BTreeMap<String, String> {
    let empty = Map::new();
    let map = map.as_object().unwrap_or(&empty);
    map.iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
