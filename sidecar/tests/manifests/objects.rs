//! What every object has to be: allowed little, known by its labels, and led to by its names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sidecar::{
    inject,
    kubernetes::{self, Enrolment, annotations},
};
use sidecar_tests::manifests::{name, objects, overlays, render};

use super::{ALL, array, containers, pod, selects, text};

#[test]
fn our_roles_allow_to_read_what_they_name_and_the_apps_to_ask_for_their_certificate() {
    const READ: &[&str] = &["get", "list", "watch"];
    let mut rules = 0;
    for (overlay, object) in &*ALL {
        let kind = text(&object["kind"]);
        if !matches!(kind, "Role" | "ClusterRole") {
            continue;
        }
        for rule in array(&object["rules"]) {
            rules += 1;
            let words = |key: &str| array(&rule[key]).iter().map(text).collect::<BTreeSet<_>>();
            let what = format!("{overlay}: {}: {rule}", name(object));
            let (allowed, verbs) = match words("apiGroups").into_iter().collect::<Vec<_>>()[..] {
                [""] => (["pods", "services"].as_slice(), READ),
                ["discovery.k8s.io"] => (["endpointslices"].as_slice(), READ),
                // The apps', in their own namespace alone.
                ["cert-manager.io"] if kind == "Role" => {
                    (["certificaterequests"].as_slice(), ["create"].as_slice())
                }
                _ => panic!("{what}"),
            };
            let set = |words: &[&'static str]| words.iter().copied().collect::<BTreeSet<_>>();
            assert_eq!(words("verbs"), set(verbs), "{what}");
            assert_eq!(words("resources"), set(allowed), "{what}");
            assert_eq!(
                rule.as_object().map(serde_json::Map::len),
                Some(3),
                "{what}"
            );
        }
    }
    assert!(rules > 0, "nobody may read anything");
}

/// Every text in an object that is ours by its prefix: keys of labels and annotations, wherever they
/// are selected, and names of fields; each with the value it has, if it has one.
fn marks<'a>(value: &'a Value, marks: &mut Vec<(&'a str, Option<&'a str>)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key.starts_with(annotations::PREFIX) {
                    marks.push((key, value.as_str()));
                }
                self::marks(value, marks);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| self::marks(value, marks)),
        Value::String(text) if text.starts_with(annotations::PREFIX) => marks.push((text, None)),
        _ => {}
    }
}

#[test]
fn labels_and_annotations_are_ones_that_we_know() {
    let mut found = Vec::new();
    for (_, object) in &*ALL {
        marks(object, &mut found);
    }
    assert!(found.iter().any(|(key, _)| *key == kubernetes::LABEL));
    for (key, value) in found {
        if key == kubernetes::LABEL {
            let is_known = value.is_none_or(|value| Enrolment::of(Some(value)) != Enrolment::None);
            assert!(is_known, "{key}: {value:?}");
            continue;
        }
        let value = value.unwrap_or_else(|| panic!("{key} has no value"));
        let annotation = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        if let Err(error) = annotations::settings(&annotation, inject::ANNOTATIONS) {
            panic!("{error}");
        }
    }
}

#[test]
fn namespaces_say_how_much_their_pods_may() {
    for (overlay, object) in &*ALL {
        if object["kind"] != json!("Namespace") {
            continue;
        }
        let level = &object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        let namespace = &object["metadata"]["name"];
        let pods = objects(&render(overlay));
        let needs = pods.iter().any(|owner| {
            let is_added = owner.pointer("/spec/template/metadata/labels/sidecar.mesh~1inject")
                == Some(&json!("enabled"));
            let adds =
                |one: &Value| !array(&one["securityContext"]["capabilities"]["add"]).is_empty();
            let is_privileged = pod(owner).is_some_and(|pod| containers(pod).any(adds));
            owner["metadata"]["namespace"] == *namespace && (is_added || is_privileged)
        });
        let is_privileged = *level == json!("privileged");
        assert!(level.is_string(), "{overlay}: {namespace}");
        assert_eq!(is_privileged, needs, "{overlay}: {namespace}");
    }
}

#[test]
fn names_lead_to_objects_of_the_same_overlay() {
    for overlay in overlays() {
        let objects = objects(&render(&overlay));
        let has = |kind: &str, namespace: Option<&Value>, name: &Value| {
            objects.iter().any(|object| {
                let metadata = &object["metadata"];
                object["kind"] == kind
                    && metadata["name"] == *name
                    && namespace.is_none_or(|namespace| metadata["namespace"] == *namespace)
            })
        };
        for object in &objects {
            let what = format!("{overlay}: {}", name(object));
            let namespace = &object["metadata"]["namespace"];
            if let Some(pod) = pod(object) {
                assert!(has("Namespace", None, namespace), "{what}: {namespace}");
                let account = &pod["serviceAccountName"];
                assert!(
                    has("ServiceAccount", Some(namespace), account),
                    "{what}: {account}"
                );
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                assert!(
                    selects(&object["spec"]["selector"]["matchLabels"], labels),
                    "{what}"
                );
                let volumes = array(&pod["volumes"]).iter().map(|volume| &volume["name"]);
                let volumes: Vec<_> = volumes.collect();
                for mount in containers(pod).flat_map(|one| array(&one["volumeMounts"])) {
                    assert!(volumes.contains(&&mount["name"]), "{what}: {mount}");
                }
            }
            if object["roleRef"].is_object() {
                let kind = text(&object["roleRef"]["kind"]);
                assert!(has(kind, None, &object["roleRef"]["name"]), "{what}");
                for subject in array(&object["subjects"]) {
                    let namespace = Some(&subject["namespace"]);
                    assert!(has("ServiceAccount", namespace, &subject["name"]), "{what}");
                }
            }
        }
    }
}

#[test]
fn critical_pods_have_a_quota_that_lets_them_in_and_asks_for_nothing_else() {
    let mut critical = 0;
    for overlay in overlays() {
        let objects = objects(&render(&overlay));
        for object in &objects {
            let class = pod(object).map_or(&Value::Null, |pod| &pod["priorityClassName"]);
            if !class
                .as_str()
                .is_some_and(|class| class.starts_with("system-"))
            {
                continue;
            }
            critical += 1;
            let scope = json!({ "matchExpressions": [
                { "scopeName": "PriorityClass", "operator": "In", "values": [class] },
            ]});
            let quota = objects.iter().find(|quota| {
                quota["kind"] == "ResourceQuota"
                    && quota["metadata"]["namespace"] == object["metadata"]["namespace"]
                    && quota["spec"]["scopeSelector"] == scope
            });
            let what = format!("{overlay}: {} as {class}", name(object));
            let quota = quota.unwrap_or_else(|| panic!("{what}: there is no quota"));
            assert_eq!(quota["spec"]["hard"], json!({ "pods": "1G" }), "{what}");
        }
    }
    assert!(critical > 1, "nothing is critical");
}
