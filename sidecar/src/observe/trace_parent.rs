/// The place in a trace that a request says it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceParent {
    /// The trace, never 0.
    pub trace_id: u128,
    /// The span that made the request, never 0.
    pub span_id: u64,
    /// Is it to be recorded?
    pub is_sampled: bool,
    /// `tracestate` as it came, if it did and is valid.
    pub state: Option<Box<str>>,
}

/// Gathers the fields of a request's head that say which trace it belongs to.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders {}

impl TraceHeaders {
    /// Looks at one field; `name` in whatever case.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        let _ = (name, value);
    }

    /// What the fields say together, once the head is whole.
    pub fn parent(self) -> Option<TraceParent> {
        None
    }
}
