use serde_json::{Value, json};

use super::{identity, options::Options};

/// The user and group that the image's sidecar runs as.
pub(super) const USER: u32 = 4195;
/// Where the node's BPF file system is in our containers. Not below `/sys`: the `AppArmor` profiles
/// that container runtimes bring deny writing and locking there.
pub(super) const BPFFS: &str = "/run/sidecar/bpf";
/// Where the node's cgroup tree is in our containers.
const CGROUP: &str = "/run/sidecar/cgroup";
/// Where the file of settings is mounted.
const CONFIG: &str = "/etc/sidecar";
/// The key of the `ConfigMap` that holds the settings.
const CONFIG_FILE: &str = "sidecar.yaml";

/// The names of our containers, each with what its arguments begin with.
const NAMES: [(&str, &str); 3] = [
    ("sidecar-init", "init"),
    ("sidecar", "run"),
    ("sidecar-validate", "validate"),
];
/// The names of our volumes.
const VOLUMES: [&str; 4] = [
    "sidecar-bpf",
    "sidecar-cgroup",
    "sidecar-config",
    identity::VOLUME,
];

/// Is this container one that was added by us? Others may be called like ours and do something of the
/// same name; nobody else has reason to be in our group.
pub(super) fn is_ours(container: &Value) -> bool {
    container["securityContext"]["runAsGroup"] == USER
        && NAMES
            .iter()
            .any(|(name, command)| container["name"] == *name && container["args"][0] == *command)
}

/// Does it have the name of one of ours?
pub(super) fn has_our_name(container: &Value) -> bool {
    NAMES.iter().any(|(name, _)| container["name"] == *name)
}

/// Does this volume have the name of one of ours?
pub(super) fn has_our_volumes_name(volume: &Value) -> bool {
    VOLUMES.iter().any(|name| volume["name"] == *name)
}

/// Was this volume of a pod added by us? It is called like one of ours, and a container of ours has it.
pub(super) fn is_our_volume(volume: &Value, spec: &Value) -> bool {
    has_our_volumes_name(volume) && has(spec, volume, is_ours)
}

/// Do containers have this volume that were not added by us?
pub(super) fn is_volume_of_others(volume: &Value, spec: &Value) -> bool {
    has(spec, volume, |container| !is_ours(container))
}

/// Does one of these containers of a pod have a volume?
fn has(spec: &Value, volume: &Value, is_meant: impl Fn(&Value) -> bool) -> bool {
    let mounts = |container: &Value| {
        let mounts = container["volumeMounts"].as_array();
        mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["name"] == volume["name"]))
    };
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|list| spec[list].as_array())
        .flatten()
        .any(|container| is_meant(container) && mounts(container))
}

/// The name of a container that declares the port on which a sidecar tells of its health. That
/// would be captured from it.
pub(super) fn on_port(spec: &Value, admin_port: u16) -> Option<&str> {
    let is_ours_to_have = |port: &Value| {
        port["containerPort"] == admin_port
            && ["", "TCP"].contains(&port["protocol"].as_str().unwrap_or_default())
    };
    let declares = |container: &&Value| {
        let ports = container["ports"].as_array();
        ports.is_some_and(|ports| ports.iter().any(is_ours_to_have))
    };
    ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| spec[list].as_array())
        .flatten()
        .filter(|container| !is_ours(container))
        .find(declares)
        .map(|container| container["name"].as_str().unwrap_or_default())
}

/// All that our containers are made of, of one pod.
pub(super) struct Parts<'a> {
    pub(super) options: &'a Options,
    pub(super) identity: identity::Mounted,
    /// Environment variables for the settings that users gave, and for probes.
    pub(super) settings: Vec<Value>,
}

impl Parts<'_> {
    pub(super) fn containers(&self) -> Vec<Value> {
        let mut containers = vec![self.init(), self.run()];
        if self.options.validate {
            containers.push(self.validate());
        }
        containers
    }

    pub(super) fn volumes(&self) -> Vec<Value> {
        let host = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path, "type": "Directory"}});
        let mut volumes = vec![
            host("sidecar-cgroup", "/sys/fs/cgroup"),
            host("sidecar-bpf", "/sys/fs/bpf"),
            self.identity.volume.clone(),
        ];
        if let Some(name) = &self.options.config_map {
            volumes.push(json!({"name": "sidecar-config", "configMap": {"name": name}}));
        }
        volumes
    }

    /// Attaches and pins everything for the pod, as root with three capabilities, and leaves.
    fn init(&self) -> Value {
        json!({
            "name": "sidecar-init",
            "image": self.options.image,
            "args": ["init", format!("--gid={USER}")],
            "env": self.environment(),
            "resources": self.options.resources.value(),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["BPF", "NET_ADMIN", "PERFMON"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                // The maps are handed to a group that it is in itself: others take CAP_CHOWN.
                "runAsGroup": USER,
                // The pod may say otherwise for all its containers.
                "runAsNonRoot": false,
                "runAsUser": 0,
                // Runtimes' own profiles refuse bpf(2) to whoever lacks CAP_SYS_ADMIN.
                "seccompProfile": {"type": "Unconfined"},
            },
            "volumeMounts": self.mounts(&[]),
        })
    }

    /// Serves the pod for as long as it lives, without any capability.
    fn run(&self) -> Value {
        let admin_port = self.options.admin_port;
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut environment = vec![
            field("SIDECAR_POD_NAME", "metadata.name"),
            field("SIDECAR_POD_NAMESPACE", "metadata.namespace"),
            field("SIDECAR_POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("SIDECAR_NODE_NAME", "spec.nodeName"),
        ];
        let ours = self.identity.settings.iter();
        environment.extend(ours.map(|(key, value)| variable(key, value)));
        environment.push(variable("admin", &format!("[::]:{admin_port}")));
        environment.extend(self.environment());

        let probe = |path: &str, period: u32, failures: u32| {
            json!({
                "failureThreshold": failures,
                "httpGet": {"path": path, "port": admin_port},
                "periodSeconds": period,
            })
        };
        json!({
            "name": "sidecar",
            "image": self.options.image,
            "args": ["run"],
            "env": environment,
            "livenessProbe": probe("/healthz", 10, 3),
            "ports": [{"name": "sidecar", "containerPort": admin_port}],
            "readinessProbe": probe("/readyz", 5, 3),
            "resources": self.options.resources.value(),
            "restartPolicy": "Always",
            // Those profiles refuse it the maps that are pinned, too. It puts a filter of its own on
            // itself, which knows fewer calls.
            "securityContext": unprivileged("Unconfined"),
            // The app starts when this has succeeded.
            "startupProbe": probe("/readyz", 1, 120),
            "volumeMounts": self.mounts(&[(identity::VOLUME, self.identity.path)]),
        })
    }

    /// Proves that connections are captured, before the app starts. It has to know what the
    /// settings leave alone.
    fn validate(&self) -> Value {
        let mut container = json!({
            "name": "sidecar-validate",
            "image": self.options.image,
            "args": ["validate"],
            "resources": self.options.resources.value(),
            "securityContext": unprivileged("RuntimeDefault"),
        });
        let environment = self.settings();
        if !environment.is_empty() {
            container["env"] = environment.into();
        }
        let mounts: Vec<_> = self.config_mount().into_iter().collect();
        if !mounts.is_empty() {
            container["volumeMounts"] = mounts.into();
        }
        container
    }

    fn environment(&self) -> Vec<Value> {
        let mut environment = vec![variable("bpffs", BPFFS)];
        environment.extend(self.settings());
        environment
    }

    /// What users have set, and what the pod says of its probes.
    fn settings(&self) -> Vec<Value> {
        let file = || variable("config", &format!("{CONFIG}/{CONFIG_FILE}"));
        let file = self.options.config_map.is_some().then(file);
        file.into_iter()
            .chain(self.settings.iter().cloned())
            .collect()
    }

    fn config_mount(&self) -> Option<Value> {
        let mount = || read_only("sidecar-config", CONFIG);
        self.options.config_map.is_some().then(mount)
    }

    fn mounts(&self, more: &[(&str, &str)]) -> Vec<Value> {
        let mut mounts = vec![
            read_only("sidecar-cgroup", CGROUP),
            json!({"name": "sidecar-bpf", "mountPath": BPFFS}),
        ];
        mounts.extend(self.config_mount());
        mounts.extend(more.iter().map(|(name, path)| read_only(name, path)));
        mounts
    }
}

fn read_only(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": true})
}

/// An environment variable for a setting.
pub(super) fn variable(key: &str, value: &str) -> Value {
    json!({"name": name(key), "value": value})
}

/// The environment variable of a setting.
pub(super) fn name(key: &str) -> String {
    format!("SIDECAR_{}", key.replace('-', "_").to_uppercase())
}

/// No user, no capability and no file to write to.
fn unprivileged(seccomp: &str) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "runAsUser": USER,
        "seccompProfile": {"type": seccomp},
    })
}
