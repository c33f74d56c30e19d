use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, StructureStyle};

/// A part of a text, with where it stands.
#[derive(Clone, Debug)]
pub(in crate::inject) struct Node {
    /// Where it begins, in bytes.
    pub(in crate::inject) start: usize,
    /// Where it ends, in bytes. Of a collection in block style, there may be comments before it.
    pub(in crate::inject) end: usize,
    /// How many characters of its line are before it.
    pub(in crate::inject) column: usize,
    /// Its line, from 1.
    pub(in crate::inject) line: usize,
    /// By what aliases refer to it; 0 if they cannot.
    pub(super) anchor: usize,
    /// What it is.
    pub(in crate::inject) kind: Kind,
}

#[derive(Clone, Debug)]
pub(in crate::inject) enum Kind {
    /// A scalar: what it says, and whether that may stand for something else than text, as what is
    /// written without quotes may.
    Scalar { text: String, is_plain: bool },
    /// A list, in brackets or in lines.
    Sequence { is_flow: bool, items: Vec<Node> },
    /// A mapping, in braces or in lines.
    Mapping {
        is_flow: bool,
        entries: Vec<(Node, Node)>,
    },
    /// What an anchor before has.
    Alias(usize),
}

impl Node {
    /// The entry of a mapping with this key.
    pub(in crate::inject) fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        let Kind::Mapping { entries, .. } = &self.kind else {
            return None;
        };
        entries.iter().find(|(name, _)| name.text() == Some(key))
    }

    /// What a mapping says under this key.
    pub(in crate::inject) fn at(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// What a scalar says.
    pub(in crate::inject) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The items of a list, or nothing.
    pub(in crate::inject) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// Where its last character stands that is no comment, exclusively.
    pub(super) fn last_end(&self) -> usize {
        match &self.kind {
            Kind::Sequence {
                is_flow: false,
                items,
            } => items.last().map_or(self.end, Node::last_end),
            Kind::Mapping {
                is_flow: false,
                entries,
            } => entries
                .last()
                .map_or(self.end, |(_, value)| value.last_end()),
            _ => self.end,
        }
    }

    /// Do both say the same, in the same words?
    pub(in crate::inject) fn is_same(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (
                Kind::Scalar { text, is_plain },
                Kind::Scalar {
                    text: other,
                    is_plain: other_plain,
                },
            ) => text == other && is_plain == other_plain,
            (Kind::Sequence { items, .. }, Kind::Sequence { items: others, .. }) => {
                items.len() == others.len()
                    && items
                        .iter()
                        .zip(others)
                        .all(|(one, other)| one.is_same(other))
            }
            (
                Kind::Mapping { entries, .. },
                Kind::Mapping {
                    entries: others, ..
                },
            ) => {
                entries.len() == others.len()
                    && entries
                        .iter()
                        .zip(others)
                        .all(|(one, other)| one.0.is_same(&other.0) && one.1.is_same(&other.1))
            }
            (Kind::Alias(_), Kind::Alias(_)) => true,
            _ => false,
        }
    }
}

/// All documents of a text. Deeper nesting than 255 levels is an error.
pub(in crate::inject) fn documents(text: &str) -> Result<Vec<Node>, ScanError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        documents: Vec::new(),
        open: Vec::new(),
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(event) = parser.next_event() {
        let (event, span) = event?;
        reader.take(event, span.start, span.end);
    }
    Ok(reader.documents)
}

struct Reader {
    documents: Vec<Node>,
    /// Collections that have begun, each with the key whose value is awaited.
    open: Vec<(Node, Option<Node>)>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, start: Marker, end: Marker) {
        let node = |anchor, kind| Node {
            start: byte(start),
            end: byte(end),
            column: start.col(),
            line: start.line(),
            anchor,
            kind,
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = match tag {
                    None => style == ScalarStyle::Plain,
                    Some(tag) => tag.core_suffix().is_some_and(|kind| kind != "str"),
                };
                let text = text.into_owned();
                self.put(node(anchor, Kind::Scalar { text, is_plain }));
            }
            Event::Alias(anchor) => self.put(node(0, Kind::Alias(anchor))),
            Event::SequenceStart(style, anchor, _) => {
                let is_flow = style == StructureStyle::Flow;
                let items = Vec::new();
                self.open
                    .push((node(anchor, Kind::Sequence { is_flow, items }), None));
            }
            Event::MappingStart(style, anchor, _) => {
                let is_flow = style == StructureStyle::Flow;
                let entries = Vec::new();
                self.open
                    .push((node(anchor, Kind::Mapping { is_flow, entries }), None));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((mut whole, _)) = self.open.pop() {
                    whole.end = byte(end);
                    self.put(whole);
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, node: Node) {
        let Some((parent, key)) = self.open.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut parent.kind {
            Kind::Sequence { items, .. } => items.push(node),
            Kind::Mapping { entries, .. } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(node),
            },
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }
}

/// Markers of a text that is there as a whole know their bytes.
fn byte(marker: Marker) -> usize {
    marker.byte_offset().unwrap_or_default()
}
