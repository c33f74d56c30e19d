//! What one pod may have otherwise than the rest of its node.

use thiserror::Error;

use crate::{
    config::Settings,
    kubernetes::{
        PodFacts,
        annotations::{self, AnnotationError},
    },
    pod,
    policy::{Cidr, Port},
};

/// The settings that a pod may have for itself. All others are the node's: whoever may make a pod must
/// not choose what the agent opens or says for others.
const OF_PODS: [&str; 24] = [
    "access-log-events",
    "access-log-sampling",
    "connect-timeout",
    "drain-timeout",
    "exclude-inbound-ports",
    "exclude-outbound-cidrs",
    "exclude-outbound-ports",
    "exclude-uids",
    "forget-peers-after",
    "handshake-timeout",
    "identity-timeout",
    "inbound",
    "inbound-failure",
    "max-handshakes",
    "max-peers",
    "naming",
    "observe",
    "opaque-ports",
    "outbound",
    "outbound-failure",
    "overrides",
    "probe-ports",
    "probe-sources",
    "reuse",
];

/// Annotations that a pod cannot have.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// One of them is no setting, or has no such value.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// One is a setting of the node.
    #[error(
        "annotation {prefix}{key} is a setting of the node's agent, which a pod cannot have for itself; remove it, or set it for the agent",
        prefix = annotations::PREFIX
    )]
    OfTheNode {
        /// Its key.
        key: String,
    },
}

/// The settings of a pod: those of its annotations, then the agent's, then what its probes ask for.
pub(super) fn of_pod(facts: &PodFacts, agent: &Settings) -> Result<Settings, Error> {
    let own = annotations::settings(&facts.annotations, &[])?;
    let said = own.differing(&Settings::default());
    if let Some(of_the_node) = said.iter().find(|key| !OF_PODS.contains(&key.as_str())) {
        return Err(Error::OfTheNode {
            key: of_the_node.clone(),
        });
    }
    Ok(own.or(agent.clone()).or(probes(facts)))
}

/// Has the node's kubelet ask the pod whether it lives, as far as the pod says on which ports: from
/// the addresses that the node has towards it.
fn probes(facts: &PodFacts) -> Settings {
    let ports: Vec<Port> = facts
        .probe_ports
        .iter()
        .filter_map(|port| port.to_string().parse().ok())
        .collect();
    if ports.is_empty() {
        return Settings::default();
    }
    let sources = facts.addresses.iter().filter_map(|address| {
        let source = pod::source_towards(*address).ok()?;
        source.to_string().parse::<Cidr>().ok()
    });
    Settings {
        probe_ports: Some(ports),
        probe_sources: Some(sources.collect()),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{kubernetes::testing, policy::Mode};

    /// A pod on loopback that the kubelet asks on port 8081, with these annotations.
    fn pod(annotations: &[(&str, &str)]) -> PodFacts {
        let mut pod = testing::pod("web", "one", "127.0.0.1");
        for (key, value) in annotations {
            pod["metadata"]["annotations"][format!("sidecar.mesh/{key}")] = (*value).into();
        }
        pod["spec"]["containers"] = json!([{"livenessProbe": {"tcpSocket": {"port": 8081}}}]);
        testing::facts(pod)
    }

    fn of(annotation: (&str, &str)) -> Result<Settings, Error> {
        let agent = Settings {
            inbound: Some(Mode::Permissive),
            outbound: Some(Mode::Strict),
            ..Settings::default()
        };
        of_pod(&pod(&[annotation]), &agent)
    }

    /// The ports of probes, and where they come from.
    fn probed(settings: &Settings) -> (Vec<String>, Vec<String>) {
        let ports = settings.probe_ports.iter().flatten();
        let sources = settings.probe_sources.iter().flatten();
        (
            ports.map(ToString::to_string).collect(),
            sources.map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn the_kubelet_may_ask_where_the_pod_says_unless_the_agent_or_an_annotation_says_otherwise() {
        let nothing = Settings::default();
        let settings = of_pod(&pod(&[]), &nothing).expect("no annotations");
        let one = |port: &str, source: &str| (vec![port.to_owned()], vec![source.to_owned()]);
        assert_eq!(probed(&settings), one("8081", "127.0.0.1/32"));
        let agent = Settings {
            probe_ports: Some(vec!["9".parse().expect("a port")]),
            probe_sources: Some(vec!["192.0.2.0/24".parse().expect("a network")]),
            ..Settings::default()
        };
        let settings = of_pod(&pod(&[]), &agent).expect("no annotations");
        assert_eq!(probed(&settings), one("9", "192.0.2.0/24"));
        let annotated = pod(&[("probe-ports", "7")]);
        let settings = of_pod(&annotated, &agent).expect("a setting of pods");
        assert_eq!(probed(&settings), one("7", "192.0.2.0/24"));
    }

    #[test]
    fn a_pod_has_its_own_settings_over_the_agents() {
        let settings = of(("inbound", "strict")).expect("a setting of pods");
        assert_eq!(settings.inbound, Some(Mode::Strict));
        assert_eq!(settings.outbound, Some(Mode::Strict));
    }

    #[test]
    fn what_is_the_nodes_is_refused_by_name() {
        for (key, value) in [
            ("cgroup", "/sys/fs/cgroup"),
            ("netns", "/proc/1/ns/net"),
            ("bpffs", "/tmp"),
            ("admin", "0.0.0.0:80"),
            ("log", "trace"),
            ("access-log-file", "/etc/passwd"),
            ("certificate", "/etc/shadow"),
            ("key", "/etc/shadow"),
            ("identity", "spiffe://sidecar.local/ns/default/sa/other"),
            ("dev-ca", "/tmp"),
            ("workload-api", "unix:/tmp/socket"),
            ("traces", "http://192.0.2.1:4317"),
            ("workers", "64"),
        ] {
            let error = of((key, value)).expect_err(key).to_string();
            assert!(
                error.contains(&format!("sidecar.mesh/{key} is a setting of the node")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_setting_of_pods_is_one() {
        let all = Settings::default();
        // A value that no setting has tells that the key is known.
        for key in OF_PODS {
            let refused = of_pod(&pod(&[(key, "\u{0}")]), &all)
                .expect_err("no value")
                .to_string();
            assert!(
                !refused.contains("there is no such setting"),
                "{key}: {refused}"
            );
        }
    }
}
