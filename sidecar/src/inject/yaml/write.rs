use serde_json::{Map, Value};

/// An entry of a mapping in lines: the key at a column, and a list that is indented further.
pub(super) fn block_entry(
    column: usize,
    indent: usize,
    key: &str,
    items: &[Value],
    line_end: &str,
) -> String {
    let items = block_items(column + indent, items, line_end);
    format!("{}{key}:{line_end}{items}", " ".repeat(column))
}

/// Items of a list in lines, their dashes at a column.
pub(super) fn block_items(column: usize, items: &[Value], line_end: &str) -> String {
    let mut lines = Vec::new();
    list(items, column, &mut lines);
    lines
        .iter()
        .fold(String::new(), |text, line| text + line + line_end)
}

/// The same on one line, or on lines of their own from a column on.
pub(super) fn flow(value: &Value, column: Option<usize>, line_end: &str) -> String {
    // Writing to memory does not fail, and keys are strings.
    let Some(column) = column else {
        return value.to_string();
    };
    let pretty = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    pretty.replace('\n', &format!("{line_end}{}", " ".repeat(column)))
}

fn list(items: &[Value], column: usize, lines: &mut Vec<String>) {
    for item in items {
        let first = lines.len();
        node(item, column + 2, lines);
        // What is indented by two has room for a dash.
        if let Some(line) = lines.get_mut(first) {
            line.replace_range(column..=column, "-");
        }
    }
}

fn node(value: &Value, column: usize, lines: &mut Vec<String>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => mapping(entries, column, lines),
        Value::Array(items) if !items.is_empty() => list(items, column, lines),
        _ => lines.push(" ".repeat(column) + &scalar(value)),
    }
}

/// The name first, as people write it.
fn mapping(entries: &Map<String, Value>, column: usize, lines: &mut Vec<String>) {
    let (names, others): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| *key == "name");
    for (key, value) in names.into_iter().chain(others) {
        let key = " ".repeat(column) + &word(key) + ":";
        let is_nested = matches!(value, Value::Object(entries) if !entries.is_empty())
            || matches!(value, Value::Array(items) if !items.is_empty());
        if is_nested {
            lines.push(key);
            node(value, column + 2, lines);
        } else {
            lines.push(format!("{key} {}", scalar(value)));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

/// What some version of YAML or some program takes for no string.
const TAKEN: [&str; 10] = [
    "true", "false", "yes", "no", "on", "off", "null", "inf", "nan", "infinity",
];

/// In quotes, unless nobody could take it for something else than a string.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.len() > 1
        && !text.ends_with(':')
        && text
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "-_./:".contains(character));
    let is_quantity = text.starts_with(|first: char| first.is_ascii_digit())
        && ["m", "Ki", "Mi", "Gi"].iter().any(|unit| {
            let number = text.strip_suffix(unit);
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
    if (is_plain && !TAKEN.contains(&text.to_lowercase().as_str())) || is_quantity {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
