use std::fmt;

use serde_json::Value;
use thiserror::Error;

use super::{
    addition::{Addition, LISTS},
    manifest::{Object, objects},
    options::Options,
    template::{Decision, Reason, TemplateError, Unasked, decide},
    yaml::{self, Edit, Mapping, Meaning, Node},
};
use crate::kubernetes::annotations::PREFIX;

/// The largest text that is read, in bytes; the API server takes objects of 1.5 MB.
const LARGEST: usize = 16 << 20;

/// What is to be done with a text of manifests.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Pods get a sidecar, in place of one that they were given before.
    Inject {
        /// What is added.
        options: &'a Options,
        /// To whom.
        unasked: Unasked,
    },
    /// Pods are as they were before they got one.
    Uninject,
}

/// What became of an object that makes pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Which: `deployment/web`.
    pub object: String,
    /// What.
    pub result: Fate,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Its pods have a sidecar now.
    Injected,
    /// Its pods have none any more.
    Uninjected,
    /// It was just as it is to be.
    Unchanged,
    /// It is left as it is.
    Skipped(Reason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        match self.result {
            Fate::Injected => f.write_str("injected"),
            Fate::Uninjected => f.write_str("uninjected"),
            Fate::Unchanged => f.write_str("unchanged"),
            Fate::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}

/// A text that cannot be changed as asked. Nothing of it is, then.
#[derive(Debug, Error)]
pub enum TextError {
    /// It is no YAML or JSON.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// It is longer than any manifest.
    #[error("it is longer than {LARGEST} bytes; split it")]
    Large,
    /// A document that would have to be changed is ambiguous.
    #[error("{object}: {reason}")]
    Meaning {
        /// The first object of it.
        object: String,
        /// Why.
        reason: String,
    },
    /// A pod cannot be given a sidecar.
    #[error("{object}: {error}")]
    Template {
        /// Which.
        object: String,
        /// Why not.
        error: TemplateError,
    },
    /// It is written in a way that cannot be changed without changing something else.
    #[error("{object}: cannot be edited as it is written: {reason}")]
    Written {
        /// Which object.
        object: String,
        /// What is in the way, and what to do.
        reason: String,
    },
}

/// Changes all objects in a text that make pods. Whatever else is in it stays, to the byte.
///
/// The text is edited, not written anew. What comes out is read again, and given only if it says
/// what the objects would say had they been changed as data.
pub fn manifests(text: &str, change: Change<'_>) -> Result<(String, Vec<Outcome>), TextError> {
    if text.len() > LARGEST {
        return Err(TextError::Large);
    }
    let documents = read(text)?;
    let mut wanted = Vec::new();
    let mut outcomes = Vec::new();
    for document in &documents {
        wanted.push(Wanted::of(document, change, &mut outcomes)?);
    }
    // Removed first, then added: two texts, so that each edit is of a text that has been read.
    let removed = edited(text, &wanted, |mapping, object| {
        each_list(|list| {
            let is_replaced = object.addition.replaces(&object.before, list);
            yaml::remove(mapping, list, &is_replaced)
        })
    })?;
    let added = edited(&removed, &wanted, |mapping, object| {
        each_list(|list| match object.addition.to(list) {
            [] => Ok(Vec::new()),
            items => yaml::add(mapping, list, items),
        })
    })?;
    verify(text, &added, &documents, &wanted)?;
    Ok((added, outcomes))
}

fn read(text: &str) -> Result<Vec<Node>, TextError> {
    yaml::documents(text).map_err(|error| TextError::Syntax {
        line: error.marker().line(),
        reason: error.info(),
    })
}

/// What a document is to say, if that is something else than it says.
struct Wanted {
    meaning: Option<Value>,
    /// Those that are changed, by their number among those of the document.
    objects: Vec<(usize, WantedObject)>,
}

struct WantedObject {
    name: String,
    /// The specification as it was.
    before: Value,
    /// What is added to what others wrote.
    addition: Addition,
}

impl Wanted {
    fn of(
        document: &Node,
        change: Change<'_>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<Self, TextError> {
        let found = objects(document);
        let mut wanted = Self {
            meaning: None,
            objects: Vec::new(),
        };
        let Some(first) = found.first() else {
            return Ok(wanted);
        };
        let mut meaning = yaml::meaning(document).map_err(|error: Meaning| TextError::Meaning {
            object: first.name.clone(),
            reason: error.to_string(),
        })?;
        for (index, object) in found.into_iter().enumerate() {
            let pointer = object
                .template
                .iter()
                .fold(String::new(), |way, key| way + "/" + key);
            let template = meaning.pointer(&pointer).cloned().unwrap_or_default();
            let (addition, result) = match change {
                Change::Uninject => (Addition::default(), Fate::Uninjected),
                Change::Inject { options, unasked } => {
                    let decision = refuse_misplaced(&meaning, &object.template, &template)
                        .and_then(|()| decide(&template, options, unasked));
                    match decision.map_err(|error| TextError::Template {
                        object: object.name.clone(),
                        error,
                    })? {
                        Decision::Inject(addition) => (addition, Fate::Injected),
                        Decision::Skip(reason) => {
                            outcomes.push(outcome(&object, Fate::Skipped(reason)));
                            continue;
                        }
                    }
                }
            };
            let before = template["spec"].clone();
            let after = addition.apply(&before);
            if after == before {
                outcomes.push(outcome(&object, Fate::Unchanged));
                continue;
            }
            outcomes.push(outcome(&object, result));
            if let Some(template) = meaning.pointer_mut(&pointer) {
                template["spec"] = after;
            }
            let object = WantedObject {
                name: object.name,
                before,
                addition,
            };
            wanted.objects.push((index, object));
        }
        if !wanted.objects.is_empty() {
            wanted.meaning = Some(meaning);
        }
        Ok(wanted)
    }
}

/// What is said to a pod and written where no pod has it: on what makes the pod, and not on its template
/// as well, as tools do that write the same everywhere.
fn refuse_misplaced(
    document: &Value,
    way: &[String],
    template: &Value,
) -> Result<(), TemplateError> {
    let mut above = document;
    for key in way {
        for kind in ["annotations", "labels"] {
            let reaches = &template["metadata"][kind];
            let mut said = above["metadata"][kind].as_object().into_iter().flatten();
            let lost = said
                .find(|(key, value)| key.starts_with(PREFIX) && reaches.get(key) != Some(value));
            if let Some((name, _)) = lost {
                let name = name.clone();
                return Err(TemplateError::Misplaced { kind, name });
            }
        }
        above = match above {
            Value::Array(items) => key.parse().ok().and_then(|index: usize| items.get(index)),
            other => other.get(key),
        }
        .unwrap_or(&Value::Null);
    }
    Ok(())
}

fn outcome(object: &Object<'_>, result: Fate) -> Outcome {
    Outcome {
        object: object.name.clone(),
        result,
    }
}

/// Edits of both lists.
fn each_list(edits: impl Fn(&str) -> Result<Vec<Edit>, String>) -> Result<Vec<Edit>, String> {
    let mut all = Vec::new();
    for list in LISTS {
        all.extend(edits(list)?);
    }
    Ok(all)
}

/// The text with what `edits` says about each object that is changed.
fn edited(
    text: &str,
    wanted: &[Wanted],
    edits: impl Fn(Mapping<'_>, &WantedObject) -> Result<Vec<Edit>, String>,
) -> Result<String, TextError> {
    let documents = read(text)?;
    let mut all = Vec::new();
    for (document, wanted) in documents.iter().zip(wanted) {
        let found = objects(document);
        for (index, object) in &wanted.objects {
            let written = |reason| TextError::Written {
                object: object.name.clone(),
                reason,
            };
            let Some((key, node)) = found.get(*index).and_then(|found| found.spec) else {
                return Err(written(
                    "its pod is, or is in, an alias; write it out".to_owned(),
                ));
            };
            let mapping = Mapping { text, key, node };
            all.extend(edits(mapping, object).map_err(written)?);
        }
    }
    Ok(yaml::apply(text, all))
}

/// Does the new text say what it is to say, and nothing else?
fn verify(
    before: &str,
    after: &str,
    documents: &[Node],
    wanted: &[Wanted],
) -> Result<(), TextError> {
    let named = wanted.iter().flat_map(|wanted| &wanted.objects).next();
    let Some((_, object)) = named else {
        return Ok(());
    };
    let differs = || {
        TextError::Written {
        object: object.name.clone(),
        reason: "more than its pod would change, by an anchor, a merge or an unusual layout; write it plainly"
            .to_owned(),
    }
    };
    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json(before) && !is_json(after) {
        return Err(differs());
    }
    let results = read(after).map_err(|_| differs())?;
    if results.len() != documents.len() {
        return Err(differs());
    }
    for ((old, new), wanted) in documents.iter().zip(&results).zip(wanted) {
        let is_as_wanted = match &wanted.meaning {
            None => old.is_same(new),
            Some(meaning) => yaml::meaning(new).is_ok_and(|new| new == *meaning),
        };
        if !is_as_wanted {
            return Err(differs());
        }
    }
    Ok(())
}
