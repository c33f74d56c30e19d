use std::collections::HashMap;

use serde_json::{Map, Value};
use thiserror::Error;

use super::node::{Kind, Node};

/// What aliases may multiply a document to.
const NODES: usize = 200_000;

/// A document that means nothing to Kubernetes.
#[derive(Debug, Error)]
pub(in crate::inject) enum Meaning {
    #[error("line {line}: {key} stands there twice")]
    Twice { key: String, line: usize },
    #[error("line {line}: a key has to be a single word")]
    Key { line: usize },
    #[error("line {line}: what is merged by << has to be a mapping")]
    Merge { line: usize },
    #[error("line {line}: an alias refers to what it is part of")]
    Circle { line: usize },
    #[error("its aliases make more than {NODES} parts of it")]
    Large,
}

/// What a document says, with aliases and merges done.
pub(in crate::inject) fn meaning(document: &Node) -> Result<Value, Meaning> {
    let mut reader = Reader {
        anchors: HashMap::new(),
        nodes: 0,
    };
    reader.value(document)
}

struct Reader {
    /// What each anchor has, and in how many parts.
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl Reader {
    fn value(&mut self, node: &Node) -> Result<Value, Meaning> {
        let before = self.nodes;
        self.count(1)?;
        let value = match &node.kind {
            Kind::Scalar {
                text,
                is_plain: true,
            } => plain(text),
            Kind::Scalar { text, .. } => Value::from(text.as_str()),
            Kind::Sequence { items, .. } => {
                let items = items.iter().map(|item| self.value(item));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Kind::Mapping { entries, .. } => self.mapping(entries)?,
            Kind::Alias(anchor) => {
                let circle = Meaning::Circle { line: node.line };
                let (value, nodes) = self.anchors.get(anchor).ok_or(circle)?;
                let (value, nodes) = (value.clone(), *nodes);
                self.count(nodes)?;
                value
            }
        };
        if node.anchor != 0 {
            let nodes = self.nodes - before;
            self.anchors.insert(node.anchor, (value.clone(), nodes));
        }
        Ok(value)
    }

    fn mapping(&mut self, entries: &[(Node, Node)]) -> Result<Value, Meaning> {
        let mut own = Map::new();
        let mut merged = Map::new();
        for (key, value) in entries {
            let line = key.line;
            if matches!(&key.kind, Kind::Scalar { text, is_plain: true } if text == "<<") {
                let value = self.value(value)?;
                let sources = match value {
                    Value::Array(sources) => sources,
                    one => vec![one],
                };
                for source in sources {
                    let Value::Object(source) = source else {
                        return Err(Meaning::Merge { line });
                    };
                    for (key, value) in source {
                        merged.entry(key).or_insert(value);
                    }
                }
                continue;
            }
            let Some(key) = key.text() else {
                return Err(Meaning::Key { line });
            };
            let value = self.value(value)?;
            if own.insert(key.to_owned(), value).is_some() {
                let key = key.to_owned();
                return Err(Meaning::Twice { key, line });
            }
        }
        for (key, value) in merged {
            own.entry(key).or_insert(value);
        }
        Ok(own.into())
    }

    fn count(&mut self, nodes: usize) -> Result<(), Meaning> {
        self.nodes += nodes;
        if self.nodes > NODES {
            return Err(Meaning::Large);
        }
        Ok(())
    }
}

/// What Kubernetes makes of a word without quotes, which includes YAML 1.1's many words for yes.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => number(text).unwrap_or_else(|| Value::from(text)),
    }
}

/// A number as Kubernetes reads it, with underscores anywhere but first.
fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return None;
    }
    let text = text.replace('_', "");
    integer(&text).map(Value::from).or_else(|| float(&text))
}

/// An integer as Kubernetes reads it, in any of Go's notations: also `0x1f90`, `0o17620`, `017620`,
/// and `0b11`.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let of_base = |prefix, base| Some((lower.strip_prefix(prefix)?, base));
    let (digits, base) = of_base("0x", 16)
        .or_else(|| of_base("0o", 8))
        .or_else(|| of_base("0b", 2))
        .or_else(|| {
            of_base("0", 8)
                .filter(|(rest, _)| rest.bytes().all(|digit| (b'0'..b'8').contains(&digit)))
        })
        .filter(|(rest, _)| !rest.is_empty())
        .unwrap_or((digits, 10));
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// What is whole, such as `8080.0` or `8e3`, is an integer once it has become JSON.
fn float(text: &str) -> Option<Value> {
    let number = text.parse::<f64>().ok().filter(|it| it.is_finite())?;
    let whole = (number.fract() == 0.0).then(|| format!("{number:.0}").parse::<i64>().ok());
    Some(whole.flatten().map_or_else(|| number.into(), Value::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_kubernetes_reads_them() {
        for text in [
            "8080",
            "+8080",
            "8_080",
            "0x1f90",
            "0X1F90",
            "0o17620",
            "017620",
            "0b1111110010000",
        ] {
            assert_eq!(plain(text), 8080, "{text}");
        }
        for (text, number) in [("0", 0), ("-0x10", -16), ("08", 8), ("-5", -5)] {
            assert_eq!(plain(text), number, "{text}");
        }
        for (text, number) in [("8080.0", 8080), ("8e3", 8000), ("1.", 1), ("1__0", 10)] {
            assert_eq!(plain(text), number, "{text}");
        }
        assert_eq!(plain(".5"), 0.5);
        assert_eq!(plain("-1.5"), -1.5);
        let texts = [
            "0x",
            "0o8",
            "--5",
            "+-5",
            "0x-5",
            "x",
            "_",
            "_1",
            "_8080",
            "1e400",
            "12:30",
            "10.0.0.1",
            "1Gi",
            "+",
            "2024-01-01",
            "inf",
            "nan",
            "+inf",
            "-.inf",
            "-nan",
        ];
        for text in texts {
            assert_eq!(plain(text), text, "{text}");
        }
    }

    #[test]
    fn words_for_yes_and_no_are_known_in_three_spellings_each() {
        for text in [
            "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE",
        ] {
            assert_eq!(plain(text), true, "{text}");
        }
        for text in [
            "n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE",
        ] {
            assert_eq!(plain(text), false, "{text}");
        }
        for text in ["yEs", "oN", "ye"] {
            assert_eq!(plain(text), text, "{text}");
        }
    }
}
