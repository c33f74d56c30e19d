use super::yaml::{Kind, Node};

/// An object that makes pods, found in a document.
pub(super) struct Object<'a> {
    /// `kind/name`, the kind in lower case.
    pub(super) name: String,
    /// Where its template is in the document: an object with `metadata` and `spec`. Each is a key,
    /// or the number of an item.
    pub(super) template: Vec<String>,
    /// The key `spec` of the template and what it has, unless it is there by an alias.
    pub(super) spec: Option<&'a (Node, Node)>,
}

/// The kinds that make pods, by their API, with the way to the template.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    (
        "batch",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
    ("batch", "Job", &["spec", "template"]),
    ("", "Pod", &[]),
    ("", "ReplicationController", &["spec", "template"]),
];

/// All objects of a document that make pods; those in lists of objects as well.
pub(super) fn objects(document: &Node) -> Vec<Object<'_>> {
    let mut found = Vec::new();
    find(document, &[], &mut found);
    found
}

fn find<'a>(node: &'a Node, path: &[String], found: &mut Vec<Object<'a>>) {
    let word = |key| node.at(key).and_then(Node::text).unwrap_or_default();
    let (api, kind) = (word("apiVersion"), word("kind"));
    let group = api.split_once('/').map_or("", |(group, _)| group);
    if kind.ends_with("List") {
        let items = node.at("items").map(Node::items).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let path = [path, &["items".to_owned(), index.to_string()]].concat();
            find(item, &path, found);
        }
        return;
    }
    let Some((_, _, way)) = KINDS
        .iter()
        .find(|known| (known.0, known.1) == (group, kind))
    else {
        return;
    };
    let template = way.iter().try_fold(node, |node, key| node.at(key));
    found.push(Object {
        name: format!("{}/{}", kind.to_lowercase(), name(node)),
        template: path
            .iter()
            .cloned()
            .chain(way.iter().map(|key| (*key).to_owned()))
            .collect(),
        spec: template
            .and_then(|template| template.entry("spec"))
            .filter(|(_, spec)| matches!(spec.kind, Kind::Mapping { .. })),
    });
}

/// Its name, or what its name will begin with.
fn name(object: &Node) -> &str {
    let metadata = object.at("metadata");
    let word = |key| metadata?.at(key)?.text();
    word("name")
        .or_else(|| word("generateName"))
        .unwrap_or("(without a name)")
}
