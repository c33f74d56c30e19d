//! Who is asked for metrics, and the rules about them.

use std::{env, fs};

use serde_json::{Value, json};
use sidecar_tests::manifests::{self, name, objects, render};

use super::{ADMIN_PORT, array, of_kind, ours, selects, text};

/// Set it, to anything, to write the copy anew; as for other files that tests compare with.
const WRITE: &str = "SIDECAR_WRITE_GOLDEN";

/// The rules as the Prometheus operator takes them.
const COPY: &str = "deploy/kustomize/overlays/observability/prometheus-rule.yaml";

#[test]
fn the_operators_rules_are_the_ones_of_the_directory() {
    let read = |path: &str| {
        let path = manifests::root().join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let rules = read("deploy/observability/rules.yaml");
    let (_, groups) = rules.split_once("groups:\n").expect("there are groups");
    let copy = read(COPY);
    let (head, _) = copy.split_once("  groups:\n").expect("there are groups");
    let indented = groups.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    });
    let expected = format!("{head}  groups:\n{}", indented.collect::<String>());
    if env::var_os(WRITE).is_some() {
        fs::write(manifests::root().join(COPY), expected).expect("writing the copy");
        return;
    }
    assert!(
        copy == expected,
        "{COPY} is another; {WRITE}=1 has this test write it"
    );
    let [copy] = &objects(&copy)[..] else {
        panic!("one object");
    };
    assert_eq!(copy["spec"], objects(&rules)[0]);
}

#[test]
fn prometheus_asks_containers_that_there_are_where_they_answer() {
    let objects = objects(&render("deploy/kustomize/overlays/observability"));
    let ours = ours();
    let mut monitors = of_kind(&objects, "PodMonitor");
    monitors.sort_by_key(|monitor| name(monitor));
    let [sidecars, agents, webhooks] = monitors[..] else {
        panic!("one for sidecars, one for agents, and one for webhooks");
    };
    let asked = |monitor: &Value, container: &str| {
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        let asked = ours.iter().filter(|(_, object, one)| {
            one["name"] == container
                && selects(selector, &object["spec"]["template"]["metadata"]["labels"])
        });
        let asked: Vec<_> = asked
            .map(|(_, object, one)| (object.clone(), one.clone()))
            .collect();
        assert!(!asked.is_empty(), "{} asks nobody", name(monitor));
        asked
    };

    let port = &sidecars["spec"]["podMetricsEndpoints"][0]["port"];
    for (_, container) in asked(sidecars, "sidecar") {
        let declared = json!([{ "name": port, "containerPort": ADMIN_PORT }]);
        assert_eq!(container["ports"], declared);
    }

    let endpoint = &webhooks["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["scheme"], "https", "it speaks nothing else");
    let namespaces = &webhooks["spec"]["namespaceSelector"]["matchNames"];
    for (object, container) in asked(webhooks, "webhook") {
        assert_eq!(*namespaces, json!([object["metadata"]["namespace"]]));
        let ports = array(&container["ports"]);
        assert!(ports.iter().any(|port| port["name"] == endpoint["port"]));
    }

    let endpoint = &agents["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], Value::Null, "the agent has none");
    let relabelings = array(&endpoint["relabelings"]);
    let kept = relabelings.iter().find(|one| one["action"] == "keep");
    let kept = text(&kept.expect("of all containers one is kept")["regex"]);
    let namespaces = &agents["spec"]["namespaceSelector"]["matchNames"];
    for (object, _) in asked(agents, kept) {
        assert_eq!(*namespaces, json!([object["metadata"]["namespace"]]));
    }
    let addresses = relabelings
        .iter()
        .filter(|one| one["targetLabel"] == "__address__");
    let addresses: Vec<_> = addresses
        .map(|one| text(&one["replacement"]).to_owned())
        .collect();
    assert_eq!(
        addresses,
        [format!("$1:{ADMIN_PORT}"), format!("[$1]:{ADMIN_PORT}")]
    );
}
