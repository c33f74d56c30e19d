use serde_json::Value;

use super::container::{is_our_volume, is_ours};

/// What is added to a pod: each before what is there already.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Addition {
    /// The first init containers.
    pub init_containers: Vec<Value>,
    /// Volumes for them.
    pub volumes: Vec<Value>,
}

/// Tells our items of a list from others.
pub(super) type IsOurs = fn(item: &Value, spec: &Value) -> bool;

/// The lists of a pod's specification that we add to, each with what tells our items from others.
pub(super) const LISTS: [(&str, IsOurs); 2] = [
    ("initContainers", |container, _| is_ours(container)),
    ("volumes", is_our_volume),
];

impl Addition {
    /// What is added to one of [`LISTS`].
    pub(super) fn to(&self, list: &str) -> &[Value] {
        match list {
            "initContainers" => &self.init_containers,
            _ => &self.volumes,
        }
    }

    /// The specification of a pod with this, and without what was added to it before.
    pub fn apply(&self, original: &Value) -> Value {
        let mut spec = original.clone();
        for (list, is_ours) in LISTS {
            let before = spec[list].as_array().cloned().unwrap_or_default();
            let others = before
                .iter()
                .filter(|item| !is_ours(item, original))
                .cloned();
            let after: Vec<_> = self.to(list).iter().cloned().chain(others).collect();
            let Some(spec) = spec.as_object_mut() else {
                continue;
            };
            if after == before {
                // Also where there is no such list, or one of nothing.
                if before.is_empty() && spec.get(list).is_some_and(Value::is_null) {
                    spec.remove(list);
                }
                continue;
            }
            if after.is_empty() {
                spec.remove(list);
            } else {
                spec.insert(list.to_owned(), after.into());
            }
        }
        spec
    }
}

/// Does a pod have a sidecar of ours, whatever it was added with?
pub fn has_sidecar(spec: &Value) -> bool {
    let containers = spec["initContainers"].as_array();
    containers.is_some_and(|containers| containers.iter().any(is_ours))
}
