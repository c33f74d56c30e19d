use serde_json::Value;

use super::container::{is_our_volume, is_ours, is_volume_of_others};

/// What is added to a pod: each before what is there already.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Addition {
    /// The first init containers.
    pub init_containers: Vec<Value>,
    /// Volumes for them.
    pub volumes: Vec<Value>,
}

/// The lists of a pod's specification that we add to.
pub(super) const LISTS: [&str; 2] = ["initContainers", "volumes"];

impl Addition {
    /// What is added to one of [`LISTS`].
    pub(super) fn to(&self, list: &str) -> &[Value] {
        match list {
            "initContainers" => &self.init_containers,
            _ => &self.volumes,
        }
    }

    /// Which items of one of [`LISTS`] this takes the place of: those that were added to this
    /// specification before. A volume that others have come to mount stays, unless it comes again.
    pub(super) fn replaces(&self, spec: &Value, list: &str) -> Vec<bool> {
        let comes_again = |volume: &Value| {
            let mut volumes = self.volumes.iter();
            volumes.any(|new| new["name"] == volume["name"])
        };
        let is_replaced = |item: &Value| match list {
            "initContainers" => is_ours(item),
            _ => {
                is_our_volume(item, spec) && (!is_volume_of_others(item, spec) || comes_again(item))
            }
        };
        let items = spec[list].as_array().into_iter().flatten();
        items.map(is_replaced).collect()
    }

    /// The specification of a pod with this, and without what was added to it before.
    pub fn apply(&self, original: &Value) -> Value {
        let mut spec = original.clone();
        for list in LISTS {
            let before = spec[list].as_array().cloned().unwrap_or_default();
            let others = before.iter().zip(self.replaces(original, list));
            let others = others.filter_map(|(item, is_replaced)| (!is_replaced).then_some(item));
            let after: Vec<_> = self.to(list).iter().chain(others).cloned().collect();
            let Some(spec) = spec.as_object_mut() else {
                continue;
            };
            // Also where there is no such list, or one of nothing, which stays as it is.
            if after == before {
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
