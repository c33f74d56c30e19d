use std::collections::BTreeSet;

use serde_json::Value;

/// The ports on which the kubelet asks the pod's containers how they are: of HTTP, TCP and gRPC
/// probes, and of HTTP life-cycle hooks. Names of ports are resolved, and those that nobody
/// declares are left out, as the kubelet leaves them.
pub(super) fn ports(spec: &Value) -> BTreeSet<u16> {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| spec[list].as_array())
        .flatten()
        .flat_map(of_container)
        .collect()
}

fn of_container(container: &Value) -> impl Iterator<Item = u16> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
    let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
    probes
        .into_iter()
        .chain(hooks)
        .flat_map(|asked| ["httpGet", "tcpSocket", "grpc"].map(|how| (how, &asked[how])))
        // A hook of this kind is not called; it is there for old objects' sake.
        .filter(|(_, action)| action.is_object())
        // One that names another host does not ask this pod.
        .filter(|(_, action)| action["host"].as_str().unwrap_or_default().is_empty())
        .filter_map(|(_, action)| port(container, &action["port"]))
}

fn port(container: &Value, port: &Value) -> Option<u16> {
    if let Some(number) = number(port) {
        return Some(number);
    }
    let name = port.as_str()?;
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let declared = container["ports"].as_array()?;
    let named = declared.iter().find(|port| port["name"] == name)?;
    number(&named["containerPort"])
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}
