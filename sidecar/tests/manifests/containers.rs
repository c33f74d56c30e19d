//! Containers of ours: privileges, image, arguments and tokens.

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};
use sidecar::cli::Cli;

use super::{array, containers, is_ours, ours, pod, text};

/// What ours are called in a pod, each with the capabilities that it adds to none.
const CONTAINERS: [(&str, &[&str]); 5] = [
    ("agent", &["BPF", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),
    ("sidecar", &[]),
    ("sidecar-init", &["BPF", "NET_ADMIN", "PERFMON"]),
    ("sidecar-validate", &[]),
    ("webhook", &[]),
];

/// The user that ours run as, unless they attach programs.
const USER: u64 = 4195;

#[test]
fn every_container_of_ours_has_what_it_needs_and_no_more() {
    let known = BTreeMap::from(CONTAINERS);
    for (what, object, container) in ours() {
        let added = known.get(text(&container["name"]));
        let added = added.unwrap_or_else(|| panic!("{what}: what may it do?"));
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], json!(false), "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], json!(true), "{what}");
        assert_ne!(context["privileged"], json!(true), "{what}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{what}");
        let adds: Vec<_> = array(&context["capabilities"]["add"])
            .iter()
            .map(text)
            .collect();
        assert_eq!(adds, *added, "{what}");
        let (user, profile) = if added.is_empty() {
            assert_eq!(context["runAsNonRoot"], json!(true), "{what}");
            // Those that use maps: runtimes' own profiles refuse bpf(2) to whoever lacks CAP_SYS_ADMIN.
            let uses_maps = container["name"] == json!("sidecar");
            let profile = if uses_maps {
                "Unconfined"
            } else {
                "RuntimeDefault"
            };
            (USER, profile)
        } else {
            (0, "Unconfined")
        };
        assert_eq!(context["runAsUser"], json!(user), "{what}");
        assert_eq!(context["seccompProfile"]["type"], json!(profile), "{what}");
        let resources = &container["resources"];
        assert!(resources["requests"]["cpu"].is_string(), "{what}");
        assert!(resources["limits"]["memory"].is_string(), "{what}");
        for (name, limit) in resources["limits"].as_object().into_iter().flatten() {
            // Without a request the limit would be one.
            let request = &resources["requests"][name];
            let fits = quantity(text(request)) <= quantity(text(limit));
            assert!(fits, "{what}: {name}: {request} of {limit}");
        }
        let is_agent = container["name"] == json!("agent");
        let pod = pod(&object).expect("it has a container");
        for of_the_node in ["hostNetwork", "hostPID", "hostIPC"] {
            let is_shared = pod[of_the_node] == json!(true);
            let needs = is_agent && of_the_node != "hostIPC";
            assert_eq!(is_shared, needs, "{what}: {of_the_node}");
        }
    }
}

/// A quantity of Kubernetes, in its unit.
#[track_caller]
fn quantity(text: &str) -> f64 {
    const UNITS: [(&str, f64); 3] = [("Gi", 1_073_741_824.0), ("Mi", 1_048_576.0), ("m", 0.001)];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (unit, factor) = unit.copied().unwrap_or(("", 1.0));
    let number = text
        .strip_suffix(unit)
        .and_then(|text| text.parse::<f64>().ok());
    factor * number.unwrap_or_else(|| panic!("how much is {text}?"))
}

#[test]
fn all_of_ours_are_the_same_image_of_this_version() {
    let image = concat!("sidecar:", env!("CARGO_PKG_VERSION"));
    for (what, _, container) in ours() {
        assert_eq!(container["image"], json!(image), "{what}");
    }
}

/// What the kubelet would put for a field of a pod.
fn field(path: &str) -> &'static str {
    match path {
        "metadata.name" => "web-6d5f8-x2x7k",
        "metadata.namespace" => "shop",
        "spec.nodeName" => "node-1",
        "spec.serviceAccountName" => "web",
        "status.hostIP" => "192.0.2.1",
        "status.hostIPs" => "192.0.2.1,2001:db8::1",
        _ => panic!("what is {path}?"),
    }
}

/// The variables of a container as the kubelet gives them: each may refer to those before it.
fn variables(container: &Value) -> Vec<(&str, String)> {
    let mut variables: Vec<(&str, String)> = Vec::new();
    for variable in array(&container["env"]) {
        let path = variable.pointer("/valueFrom/fieldRef/fieldPath");
        let mut value = path.map_or_else(
            || text(&variable["value"]).to_owned(),
            |path| field(text(path)).to_owned(),
        );
        for (name, known) in &variables {
            value = value.replace(&format!("$({name})"), known);
        }
        assert!(
            !value.contains("$("),
            "nothing before it is called so: {variable}"
        );
        variables.push((text(&variable["name"]), value));
    }
    variables
}

#[test]
fn arguments_and_variables_are_ones_that_the_command_understands() {
    let cli = Cli::command();
    for (what, _, container) in ours() {
        let args: Vec<_> = array(&container["args"]).iter().map(text).collect();
        let command = args.first().and_then(|name| cli.find_subcommand(name));
        let command = command.unwrap_or_else(|| panic!("{what}: no command: {args:?}"));
        let mut line: Vec<_> = ["sidecar"]
            .iter()
            .chain(&args)
            .map(ToString::to_string)
            .collect();
        for (name, value) in variables(&container) {
            let known = command
                .get_arguments()
                .find(|known| known.get_env().and_then(|name| name.to_str()) == Some(name));
            if let Some(flag) = known.and_then(|known| known.get_long()) {
                line.push(format!("--{flag}={value}"));
            } else {
                let is_for_others = container["env"].to_string().contains(&format!("$({name})"));
                assert!(is_for_others, "{what}: who reads {name}?");
            }
        }
        if let Err(error) = Cli::try_parse_from(&line) {
            panic!("{what}: {line:?}: {error}");
        }
    }
}

#[test]
fn whoever_is_not_asked_by_name_has_no_token() {
    for (what, object, container) in ours() {
        let pod = pod(&object).expect("it has a container");
        let asks = container["name"] == json!("agent");
        // What is added to an app's pod leaves that to the app.
        let is_alone = containers(pod).all(is_ours);
        if is_alone {
            let token = pod["automountServiceAccountToken"].as_bool();
            assert_eq!(token, Some(asks), "{what}");
        }
    }
}
