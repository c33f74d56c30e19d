//! The part of a pod's manifest that the tests can do, by the names that Kubernetes gives it.
//!
//! They are types of our own, since those of a client of the API skip what they do not know.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A pod as it is handed to the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// `v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// Its names.
    pub metadata: Metadata,
    /// What runs in it.
    pub spec: Spec,
}

impl Manifest {
    /// Reads a manifest in YAML or JSON.
    ///
    /// # Panics
    ///
    /// When it holds anything that a [`Node`](super::Node) cannot do.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let manifest: Self = serde_saphyr::from_str(text)
            .unwrap_or_else(|error| panic!("no manifest to run here: {error}\n{text}"));
        assert_eq!(
            (&*manifest.api_version, &*manifest.kind),
            ("v1", "Pod"),
            "only pods run here"
        );
        manifest
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
    #[serde(default = "default_name")]
    pub namespace: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default = "default_name")]
    pub service_account_name: String,
    #[serde(default)]
    pub security_context: PodSecurityContext,
    /// Seconds.
    #[serde(default = "default_grace")]
    pub termination_grace_period_seconds: u64,
    #[serde(rename = "hostPID", default)]
    pub host_pid: bool,
    #[serde(default)]
    pub host_network: bool,
    /// When an app restarts is for a test to say.
    pub restart_policy: Option<PodRestartPolicy>,
    /// Who asks the API is told of it otherwise.
    pub automount_service_account_token: Option<bool>,
    /// No name is resolved here.
    pub dns_policy: Option<String>,
    /// Nothing is evicted here.
    pub priority_class_name: Option<String>,
    /// It chooses a node, and here is only one.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// They choose a node as well.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PodRestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    pub key: Option<String>,
    pub operator: Option<String>,
    pub value: Option<String>,
    pub effect: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub seccomp_profile: Option<SeccompProfile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub command: Option<Vec<String>>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<Variable>,
    /// They say what is there, and change nothing.
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
    #[serde(default)]
    pub security_context: SecurityContext,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    pub startup_probe: Option<Probe>,
    pub readiness_probe: Option<Probe>,
    pub liveness_probe: Option<Probe>,
}

impl Container {
    /// What says that it has started, is ready and is alive, in the order in which it is asked.
    pub fn probes(&self) -> impl Iterator<Item = &Probe> {
        let probes = [
            &self.startup_probe,
            &self.readiness_probe,
            &self.liveness_probe,
        ];
        probes.into_iter().flatten()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    Always,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    pub name: Option<String>,
    #[serde(rename = "containerPort")]
    pub number: u16,
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<Source>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    pub field_ref: FieldRef,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    pub api_version: Option<String>,
    pub field_path: String,
}

/// Amounts, such as `64Mi` of `memory` and `100m` of `cpu`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// They choose a node, and here is only one.
    #[serde(default)]
    pub requests: BTreeMap<Resource, String>,
    #[serde(default)]
    pub limits: BTreeMap<Resource, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resource {
    Cpu,
    Memory,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityContext {
    pub allow_privilege_escalation: Option<bool>,
    /// `false`: nothing here is.
    pub privileged: Option<bool>,
    #[serde(default)]
    pub capabilities: Capabilities,
    pub read_only_root_filesystem: Option<bool>,
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub seccomp_profile: Option<SeccompProfile>,
}

/// Names without `CAP_`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    #[serde(default)]
    pub add: Vec<String>,
    #[serde(default)]
    pub drop: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompProfile {
    #[serde(rename = "type")]
    pub kind: Seccomp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Seccomp {
    RuntimeDefault,
    Unconfined,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
    pub mount_propagation: Option<Propagation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    None,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    pub host_path: Option<HostPath>,
    pub empty_dir: Option<EmptyDir>,
    pub secret: Option<Secret>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPath {
    pub path: String,
    #[serde(rename = "type", default)]
    pub kind: HostPathKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum HostPathKind {
    #[default]
    #[serde(rename = "")]
    Any,
    Directory,
    DirectoryOrCreate,
    Socket,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    pub medium: Option<Medium>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Medium {
    Memory,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    #[serde(rename = "secretName")]
    pub name: String,
    /// In YAML, `0440` is written in octal; in JSON, as 288.
    pub default_mode: Option<u32>,
    #[serde(default)]
    pub optional: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    pub http_get: Option<HttpGet>,
    pub tcp_socket: Option<TcpSocket>,
    /// How often it is asked and how long waited for says when a cluster gives up. A test waits for as
    /// long as any condition may take.
    pub period_seconds: Option<u32>,
    pub failure_threshold: Option<u32>,
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    pub path: String,
    pub port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSocket {
    pub port: u16,
}

fn default_name() -> String {
    "default".to_owned()
}

fn default_grace() -> u64 {
    30
}
