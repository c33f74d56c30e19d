//! Policies of the network.

use serde_json::Value;
use sidecar::kubernetes;
use sidecar_tests::manifests::{name, objects, render};

use super::{ADMIN_PORT, array, containers, of_kind, pod, selects};

#[test]
fn policies_of_the_network_name_ports_of_the_apps_and_none_of_ours_but_for_metrics() {
    let objects = objects(&render("deploy/kustomize/overlays/sidecar-example"));
    let policies = of_kind(&objects, "NetworkPolicy");
    let mut judged = 0;
    for policy in policies {
        let what = name(policy);
        let selector = &policy["spec"]["podSelector"]["matchLabels"];
        let named = array(&policy["spec"]["ingress"]).iter();
        let named: Vec<_> = named.flat_map(|rule| array(&rule["ports"])).collect();
        let mut selected = objects.iter().filter(|object| {
            let labels = object.pointer("/spec/template/metadata/labels");
            labels.is_some_and(|labels| selects(selector, labels))
        });
        for port in named {
            judged += 1;
            let is_metrics = port["port"] == ADMIN_PORT && selector[kubernetes::LABEL] == "enabled";
            let has = |object: &Value| {
                let mut containers = pod(object).into_iter().flat_map(containers);
                containers.any(|container| {
                    let ports = array(&container["ports"]);
                    ports.iter().any(|own| own["containerPort"] == port["port"])
                })
            };
            let fits = is_metrics || selected.clone().all(has);
            assert!(selected.next().is_some() && fits, "{what}: {port}");
        }
    }
    assert!(judged > 1, "no policy names a port");
}
