use std::ops::Range;

use serde_json::Value;

use super::{
    node::{Kind, Node},
    write::{block_entry, block_items, flow},
};

/// A piece of a text, and what stands there instead.
#[derive(Clone, Debug)]
pub(in crate::inject) struct Edit {
    range: Range<usize>,
    text: String,
}

/// A mapping that is changed.
#[derive(Clone, Copy, Debug)]
pub(in crate::inject) struct Mapping<'a> {
    /// The text it stands in.
    pub(in crate::inject) text: &'a str,
    /// The key that it is the value of.
    pub(in crate::inject) key: &'a Node,
    /// The mapping itself.
    pub(in crate::inject) node: &'a Node,
}

/// The text with all edits made. They do not overlap.
pub(in crate::inject) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    // Stable: what is inserted in one place stays in order.
    edits.sort_by_key(|edit| edit.range.start);
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for Edit { range, text: new } in edits {
        result.push_str(text.get(done..range.start).unwrap_or_default());
        result.push_str(&new);
        done = range.end.max(done);
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}

/// Puts items before those of the list that a mapping has under a key, or makes the list. Says
/// what cannot be done in words.
pub(in crate::inject) fn add(
    mapping: Mapping<'_>,
    list: &str,
    items: &[Value],
) -> Result<Vec<Edit>, String> {
    let Kind::Mapping { is_flow, entries } = &mapping.node.kind else {
        return Err("it is no mapping".to_owned());
    };
    let lines = Lines(mapping.text);
    let Some((key, value)) = mapping.node.entry(list) else {
        let Some((first, _)) = entries.first() else {
            return Err("it is empty".to_owned());
        };
        return Ok(vec![if *is_flow {
            let text = format!(
                "{}: {}",
                Value::from(list),
                flow(&items.into(), lines.own_column(first.start), lines.end())
            );
            lines.insert_flow(mapping.node, first, &text)
        } else {
            // A key may have a mark of its own before it.
            let start = lines.mark('?', first).unwrap_or(first.start);
            let column = lines.column(start);
            let text = block_entry(
                column,
                list_indent(lines, mapping.node),
                list,
                items,
                lines.end(),
            );
            lines.insert_block(mapping.key, start, column, &text)
        }]);
    };
    match &value.kind {
        Kind::Sequence {
            is_flow: false,
            items: others,
        } => {
            let Some(first) = others.first() else {
                return Err(format!("{list} is empty in a way that is not understood"));
            };
            // Of a list that is not indented, the parser says no column.
            let dash = lines.mark('-', first).unwrap_or(value.start);
            let column = lines.column(dash);
            let text = block_items(column, items, lines.end());
            Ok(vec![lines.insert_block(key, dash, column, &text)])
        }
        Kind::Sequence {
            is_flow: true,
            items: others,
        } if *is_flow || !others.is_empty() => {
            let first = others.first();
            let column = first.and_then(|first| lines.own_column(first.start));
            let texts: Vec<_> = items
                .iter()
                .map(|item| flow(item, column, lines.end()))
                .collect();
            Ok(vec![match first {
                Some(first) => {
                    let separator = format!(",{}", lines.gap(value, first));
                    lines.insert_flow(value, first, &texts.join(&separator))
                }
                None => Edit {
                    range: value.start + 1..value.start + 1,
                    text: texts.join(", "),
                },
            }])
        }
        // Nothing, in one of the ways to say so: the list goes below the key.
        Kind::Sequence { is_flow: true, .. } | Kind::Scalar { is_plain: true, .. }
            if !is_flow && value.line == key.line && is_nothing(value) =>
        {
            let after_colon = key.end + lines.after(key.end).find(':').map_or(0, |colon| colon + 1);
            let column = key.column + list_indent(lines, mapping.node);
            let below = lines.line_end(key.end);
            let text = block_items(column, items, lines.end());
            let written = value.end.max(after_colon);
            Ok(vec![
                Edit {
                    range: after_colon..written,
                    text: String::new(),
                },
                lines.insert_line(below, text),
            ])
        }
        Kind::Sequence { .. } | Kind::Scalar { .. } if *is_flow && is_nothing(value) => {
            Ok(vec![Edit {
                range: value.start..value.end,
                text: flow(&items.into(), lines.own_column(key.start), lines.end()),
            }])
        }
        Kind::Alias(_) => Err(format!(
            "{list} is an alias, and what it stands for may be used elsewhere; write it out"
        )),
        _ => Err(format!("{list} is not written as a list; write it as one")),
    }
}

/// Takes items out of the list that a mapping has under a key, and the list if nothing is left.
pub(in crate::inject) fn remove(
    mapping: Mapping<'_>,
    list: &str,
    is_removed: &[bool],
) -> Result<Vec<Edit>, String> {
    let Some((key, value)) = mapping.node.entry(list) else {
        return Ok(Vec::new());
    };
    if !is_removed.contains(&true) {
        return Ok(Vec::new());
    }
    let Kind::Sequence { is_flow, items } = &value.kind else {
        return Err(format!("{list} is not written as a list; write it as one"));
    };
    let lines = Lines(mapping.text);
    let cut = |range| Edit {
        range,
        text: String::new(),
    };
    if !is_removed.contains(&false) {
        let Kind::Mapping { is_flow, entries } = &mapping.node.kind else {
            return Err("it is no mapping".to_owned());
        };
        let index = entries
            .iter()
            .position(|(other, _)| other.start == key.start)
            .unwrap_or_default();
        let spans: Vec<_> = entries
            .iter()
            .map(|(key, value)| key.start..value.end)
            .collect();
        let is_own_line = lines.before(key.start).trim().is_empty();
        return Ok(vec![cut(if *is_flow {
            run(&spans, index, index)
        } else if is_own_line {
            lines.line_start(key.start)..lines.line_end(value.last_end())
        } else {
            let next = spans.get(index + 1);
            key.start..next.map_or(value.last_end(), |next| next.start)
        })]);
    }
    let spans: Vec<_> = items.iter().map(|item| item.start..item.end).collect();
    let mut edits = Vec::new();
    let mut index = 0;
    while index < items.len() {
        if is_removed.get(index) != Some(&true) {
            index += 1;
            continue;
        }
        let first = index;
        while is_removed.get(index + 1) == Some(&true) {
            index += 1;
        }
        edits.push(cut(if *is_flow {
            run(&spans, first, index)
        } else {
            let dash = lines
                .mark('-', &items[first])
                .filter(|dash| lines.before(*dash).trim().is_empty())
                .ok_or_else(|| format!("{list} is written in a way that is not understood"))?;
            lines.line_start(dash)..lines.line_end(items[index].last_end())
        }));
        index += 1;
    }
    Ok(edits)
}

/// From the first to the last of some neighbours, with the comma that is then one too many.
fn run(spans: &[Range<usize>], first: usize, last: usize) -> Range<usize> {
    if let Some(next) = spans.get(last + 1) {
        return spans[first].start..next.start;
    }
    match first.checked_sub(1) {
        Some(previous) => spans[previous].end..spans[last].end,
        None => spans[first].start..spans[last].end,
    }
}

/// How much further lists are indented than their keys, by the example of another one.
fn list_indent(lines: Lines<'_>, mapping: &Node) -> usize {
    let Kind::Mapping { entries, .. } = &mapping.kind else {
        return 2;
    };
    let indent = |(key, list): &(Node, Node)| {
        let dash = lines.mark('-', list.items().first()?)?;
        lines.column(dash).checked_sub(key.column)
    };
    entries.iter().find_map(indent).unwrap_or(2)
}

/// Is it an empty list, or null?
fn is_nothing(value: &Node) -> bool {
    match &value.kind {
        Kind::Sequence { items, .. } => items.is_empty(),
        Kind::Scalar {
            text,
            is_plain: true,
        } => ["", "~", "null", "Null", "NULL"].contains(&text.as_str()),
        _ => false,
    }
}

/// A text by its lines.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// How its lines end.
    fn end(self) -> &'static str {
        match self.0.find('\n') {
            Some(at) if self.0[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    fn line_start(self, at: usize) -> usize {
        self.0[..at].rfind('\n').map_or(0, |end| end + 1)
    }

    /// Where the next line begins.
    fn line_end(self, at: usize) -> usize {
        self.0[at..]
            .find('\n')
            .map_or(self.0.len(), |end| at + end + 1)
    }

    /// What stands before it on its line.
    fn before(self, at: usize) -> &'a str {
        &self.0[self.line_start(at)..at]
    }

    fn after(self, at: usize) -> &'a str {
        &self.0[at..]
    }

    /// The column, if nothing stands before it on its line but space.
    fn own_column(self, at: usize) -> Option<usize> {
        let before = self.before(at);
        before
            .bytes()
            .all(|byte| byte == b' ')
            .then_some(before.len())
    }

    /// Where the mark before a node is, such as the dash of an item, if only space is between.
    fn mark(self, mark: char, node: &Node) -> Option<usize> {
        let before = self.0[..node.start].trim_end();
        before.ends_with(mark).then(|| before.len() - 1)
    }

    /// How many characters are before it on its line.
    fn column(self, at: usize) -> usize {
        self.before(at).chars().count()
    }

    /// Puts lines below a key, before what it has first, and before comments on that.
    fn insert_block(self, key: &Node, first: usize, column: usize, text: &str) -> Edit {
        let below = self.line_end(key.end);
        let is_comment = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        if self
            .0
            .get(below..first)
            .is_some_and(|between| between.lines().all(is_comment))
        {
            return self.insert_line(below, text.to_owned());
        }
        // On the line that it shares with others, the column is already reached.
        Edit {
            range: first..first,
            text: format!("{}{}", text.trim_start_matches(' '), " ".repeat(column)),
        }
    }

    fn insert_line(self, at: usize, text: String) -> Edit {
        let is_begun = at > 0 && !self.0[..at].ends_with('\n');
        Edit {
            range: at..at,
            text: if is_begun {
                format!("{}{}", self.end(), text.trim_end())
            } else {
                text
            },
        }
    }

    /// Puts something first into brackets or braces.
    fn insert_flow(self, outer: &Node, first: &Node, text: &str) -> Edit {
        Edit {
            range: first.start..first.start,
            text: format!("{text},{}", self.gap(outer, first)),
        }
    }

    /// What separates entries: lines if the first has one of its own, else a space.
    fn gap(self, outer: &Node, first: &Node) -> &'a str {
        let gap = self.0.get(outer.start + 1..first.start).unwrap_or_default();
        if gap.contains('\n') && gap.trim().is_empty() {
            gap
        } else {
            " "
        }
    }
}
