use serde_json::Value;

/// Which objects a request is about: all that fit each of the requirements.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    fields: Vec<Requirement>,
    labels: Vec<Requirement>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    pub fn new(namespace: Option<&str>, name: Option<&str>, fields: &str, labels: &str) -> Self {
        Self {
            fields: requirements(fields),
            labels: requirements(labels),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        }
    }

    pub fn fits(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let is = |wanted: &Option<String>, key: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| metadata[key] == **wanted)
        };
        is(&self.namespace, "namespace")
            && is(&self.name, "name")
            && self
                .fields
                .iter()
                .all(|field| field.holds(|path| Some(at(object, path))))
            && self.labels.iter().all(|label| {
                label.holds(|key| {
                    let value = metadata["labels"].get(key)?;
                    value.as_str().map(str::to_owned)
                })
            })
    }
}

impl Requirement {
    fn holds(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !value(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Missing(key) => value(key).is_none(),
        }
    }
}

/// The text at a path such as `spec.nodeName`; a field that is not there is empty.
fn at(object: &Value, path: &str) -> String {
    let found = path.split('.').fold(object, |object, key| &object[key]);
    match found {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn requirements(text: &str) -> Vec<Requirement> {
    split(text)
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(requirement)
        .collect()
}

/// At the commas that stand in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => (),
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}

fn requirement(text: &str) -> Requirement {
    let one = |value: &str| vec![value.trim().to_owned()];
    let key = |key: &str| key.trim().to_owned();
    let many = |values: &str| {
        let values = values.trim().trim_start_matches('(').trim_end_matches(')');
        values.split(',').map(|v| v.trim().to_owned()).collect()
    };
    if let Some((name, values)) = text.split_once(" notin ") {
        Requirement::NotIn(key(name), many(values))
    } else if let Some((name, values)) = text.split_once(" in ") {
        Requirement::In(key(name), many(values))
    } else if let Some((name, value)) = text.split_once("!=") {
        Requirement::NotIn(key(name), one(value))
    } else if let Some((name, value)) = text.split_once('=') {
        Requirement::In(key(name), one(value.trim_start_matches('=')))
    } else if let Some(name) = text.strip_prefix('!') {
        Requirement::Missing(key(name))
    } else {
        Requirement::Exists(key(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_choose_as_the_real_ones_do() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web", "tier": ""}},
            "spec": {"nodeName": "one", "hostNetwork": true},
        });
        let fits =
            |fields: &str, labels: &str| Selector::new(None, None, fields, labels).fits(&pod);
        for (fields, labels, expected) in [
            ("", "", true),
            ("spec.nodeName=one", "", true),
            ("spec.nodeName==two", "", false),
            ("spec.nodeName!=two,spec.hostNetwork=true", "", true),
            ("status.phase=", "", true),
            ("", "app=web,tier", true),
            ("", "app in (api, web),!gone", true),
            ("", "app notin (api,web)", false),
            ("", "gone!=x", true),
            ("", "gone", false),
        ] {
            assert_eq!(fits(fields, labels), expected, "{fields:?} {labels:?}");
        }
        assert!(Selector::new(Some("shop"), Some("a"), "", "").fits(&pod));
        assert!(!Selector::new(Some("other"), None, "", "").fits(&pod));
    }
}
