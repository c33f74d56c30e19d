use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use serde_json::{Value, json};

use super::selector::Selector;

/// The objects there are, and what has become of them.
#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    /// Of what is older, nobody knows any more.
    compacted: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    /// What is left of lists that are read in pages.
    pages: HashMap<u64, (u64, Vec<Value>)>,
}

/// A collection such as `api/v1/pods`, a namespace (empty without), and a name.
type Key = (String, String, String);

#[derive(Debug)]
struct Change {
    version: u64,
    collection: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Asked for what is older than what is kept.
#[derive(Debug)]
pub(super) struct Gone;

/// A list, or a page of one.
#[derive(Debug)]
pub(super) struct Page {
    pub version: u64,
    pub items: Vec<Value>,
    /// Brings the next page.
    pub more: Option<String>,
}

impl Store {
    pub fn put(&mut self, mut object: Value) -> Value {
        let key = key(&object);
        self.version += 1;
        let before = self.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            let old = before.as_ref().map(|before| &before["metadata"]["uid"]);
            metadata["uid"] = old.cloned().unwrap_or_else(|| uid(self.version));
        }
        self.changed(key, before, Some(object.clone()));
        object
    }

    /// Whether there was such an object.
    pub fn delete(&mut self, collection: &str, namespace: &str, name: &str) -> bool {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(before) = self.objects.get(&key).cloned() else {
            return false;
        };
        self.version += 1;
        self.changed(key, Some(before), None);
        true
    }

    fn changed(&mut self, key: Key, before: Option<Value>, after: Option<Value>) {
        self.history.push(Change {
            version: self.version,
            collection: key.0.clone(),
            before,
            after: after.clone(),
        });
        match after {
            Some(after) => self.objects.insert(key, after),
            None => self.objects.remove(&key),
        };
    }

    pub fn one(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.get(&key).cloned()
    }

    /// Forgets what has happened until now.
    pub fn compact(&mut self) {
        // A version nobody has seen, so that not even the newest list is new enough.
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
        self.pages.clear();
    }

    pub fn list(&mut self, collection: &str, selector: &Selector, limit: usize) -> Page {
        let items = self.objects.iter();
        let items = items
            .filter(|(key, object)| key.0 == collection && selector.fits(object))
            .map(|(_, object)| object.clone())
            .collect();
        self.page(self.version, items, limit)
    }

    /// The next page of a list.
    pub fn go_on(&mut self, token: &str, limit: usize) -> Result<Page, Gone> {
        let token = token.parse::<u64>().ok();
        let (version, items) = token
            .and_then(|token| self.pages.remove(&token))
            .ok_or(Gone)?;
        Ok(self.page(version, items, limit))
    }

    fn page(&mut self, version: u64, mut items: Vec<Value>, limit: usize) -> Page {
        let rest = if limit > 0 && items.len() > limit {
            items.split_off(limit)
        } else {
            Vec::new()
        };
        let more = (!rest.is_empty()).then(|| {
            let token = self.pages.keys().max().map_or(1, |last| last + 1);
            self.pages.insert(token, (version, rest));
            token.to_string()
        });
        Page {
            version,
            items,
            more,
        }
    }

    /// What has happened after a version, as events, and up to which version that is.
    pub fn since(
        &self,
        version: u64,
        collection: &str,
        selector: &Selector,
    ) -> Result<(u64, Vec<Value>), Gone> {
        if version < self.compacted {
            return Err(Gone);
        }
        let fresh = self
            .history
            .partition_point(|change| change.version <= version);
        let events = self.history[fresh..]
            .iter()
            .filter(|change| change.collection == collection)
            .filter_map(|change| change.event(selector))
            .collect();
        Ok((self.version, events))
    }
}

impl Change {
    /// An object that begins or ceases to fit is one that comes or goes.
    fn event(&self, selector: &Selector) -> Option<Value> {
        let fitting =
            |object: &Option<Value>| object.clone().filter(|object| selector.fits(object));
        let (kind, mut object) = match (fitting(&self.before), fitting(&self.after)) {
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
            (None, None) => return None,
        };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        Some(json!({"type": kind, "object": object}))
    }
}

/// The collection of a kind of objects: `api/v1/pods`, `apis/discovery.k8s.io/v1/endpointslices`.
pub(super) fn collection(api_version: &str, kind: &str) -> String {
    let group = if api_version.contains('/') {
        "apis"
    } else {
        "api"
    };
    let kind = kind.to_lowercase();
    let plural = match (kind.strip_suffix('y'), kind.ends_with('s')) {
        (Some(stem), _) if !stem.ends_with('a') => format!("{stem}ies"),
        (_, true) => format!("{kind}es"),
        _ => format!("{kind}s"),
    };
    format!("{group}/{api_version}/{plural}")
}

fn key(object: &Value) -> Key {
    let text = |value: &Value, what: &str| {
        let text = value.as_str();
        text.unwrap_or_else(|| panic!("an object without {what}: {object}"))
            .to_owned()
    };
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    (
        collection(
            &text(&object["apiVersion"], "apiVersion"),
            &text(&object["kind"], "kind"),
        ),
        namespace.to_owned(),
        text(&metadata["name"], "name"),
    )
}

fn uid(number: u64) -> Value {
    json!(format!("5cfa4e00-0000-4000-8000-{number:012x}"))
}

/// What an object shows to who asks for its metadata alone.
pub(super) fn metadata_only(object: &mut Value) {
    let metadata = mem::take(&mut object["metadata"]);
    *object = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
    });
}
