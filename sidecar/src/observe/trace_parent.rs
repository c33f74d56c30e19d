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

/// Gathers the fields of a request's head that say which trace it belongs to: those of the W3C's
/// Trace Context, and those of B3 (openzipkin/b3-propagation), in one field or in several.
///
/// A field that comes twice, or does not follow its grammar to the letter, says nothing. Where both
/// are there and valid, the W3C's counts, as it does for most libraries.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders {
    /// `traceparent`
    w3c: Field<Ids>,
    /// `tracestate`, of which there may be several.
    state: State,
    /// `b3`
    b3: Field<Ids>,
    /// `x-b3-traceid`
    trace_id: Field<u128>,
    /// `x-b3-spanid`
    span_id: Field<u64>,
    /// `x-b3-sampled`
    sampled: Field<bool>,
    /// `x-b3-flags`: is it of a trace that is recorded in any case?
    debug: Field<bool>,
}

/// A field that may come once.
#[derive(Clone, Copy, Debug, Default)]
enum Field<T> {
    #[default]
    Absent,
    /// It breaks its grammar, or has come twice.
    Invalid,
    Valid(T),
}

/// What one field can say of a trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ids {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

/// The members of `tracestate`, in the order in which they came.
#[derive(Clone, Debug, Default)]
struct State {
    /// Nothing before the first field.
    members: Vec<u8>,
    /// There are more than are kept.
    is_too_long: bool,
}

impl TraceHeaders {
    /// Looks at one field; `name` in whatever case.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        // Most fields are none of these, and have none of these lengths.
        if !matches!(name.len(), 2 | 10..=12) {
            return;
        }
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        // None of them may be as long, and a header block may refer to one thousands of times.
        let value = trimmed(&value[..value.len().min(2 * State::LONGEST)]);
        if is("traceparent") {
            self.w3c.set(traceparent(value));
        } else if is("tracestate") {
            self.state.add(value);
        } else if is("b3") {
            self.b3.set(b3(value));
        } else if is("x-b3-traceid") {
            self.trace_id.set(b3_trace_id(value));
        } else if is("x-b3-spanid") {
            self.span_id.set(span_id(value));
        } else if is("x-b3-sampled") {
            self.sampled.set(b3_sampled(value));
        } else if is("x-b3-flags") {
            self.debug.set(Some(value == b"1"));
        }
    }

    /// What the fields say together, once the head is whole.
    pub fn parent(self) -> Option<TraceParent> {
        let (ids, state) = match self.w3c.get() {
            Some(ids) => (ids, self.state.valid()),
            None => (self.b3.get().or_else(|| self.b3_of_several())?, None),
        };
        Some(TraceParent {
            trace_id: ids.trace,
            span_id: ids.span,
            is_sampled: ids.is_sampled,
            state,
        })
    }

    fn b3_of_several(&self) -> Option<Ids> {
        Some(Ids {
            trace: self.trace_id.get()?,
            span: self.span_id.get()?,
            // Without a decision the next one may decide: we do not.
            is_sampled: self.debug.get() == Some(true) || self.sampled.get() == Some(true),
        })
    }
}

impl<T: Copy> Field<T> {
    fn set(&mut self, value: Option<T>) {
        *self = match (&*self, value) {
            (Self::Absent, Some(value)) => Self::Valid(value),
            _ => Self::Invalid,
        };
    }

    const fn get(&self) -> Option<T> {
        match *self {
            Self::Valid(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }
}

impl State {
    /// What everybody has to pass on (Trace Context section 3.3.1.5), in bytes. Of a longer one
    /// nothing is kept: half a list is none.
    const LONGEST: usize = 512;
    /// The most members (section 3.3.1).
    const MOST: usize = 32;

    /// One more field, which continues the list (RFC 9110 section 5.3).
    fn add(&mut self, value: &[u8]) {
        let comma: &[u8] = if self.members.is_empty() { b"" } else { b"," };
        if self.members.len() + comma.len() + value.len() > Self::LONGEST {
            self.is_too_long = true;
            return;
        }
        self.members.extend_from_slice(comma);
        self.members.extend_from_slice(value);
    }

    fn valid(self) -> Option<Box<str>> {
        let members = || self.members.split(|byte| *byte == b',').map(trimmed);
        let is_valid = !self.is_too_long
            && !self.members.is_empty()
            && members().count() <= Self::MOST
            // A member may be left empty.
            && members().all(|member| member.is_empty() || is_member(member));
        let text = is_valid.then(|| String::from_utf8(self.members).ok());
        text.flatten().map(String::into_boxed_str)
    }
}

/// Trace Context section 3.2.
fn traceparent(value: &[u8]) -> Option<Ids> {
    /// Of version 00. Later versions begin in the same way.
    const LENGTH: usize = 55;
    let (known, more) = value.split_at_checked(LENGTH)?;
    let [a, b, b'-', rest @ ..] = known else {
        return None;
    };
    let version = hex(&[*a, *b])?;
    let is_whole = match version {
        0 => more.is_empty(),
        0xff => false,
        // What a later version adds begins with a dash.
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    let (trace, rest) = rest.split_at_checked(32)?;
    let (span, rest) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
    let flags = hex(rest.strip_prefix(b"-")?)?;
    let ids = Ids {
        trace: trace_id(trace)?,
        span: span_id(span)?,
        // The other flags say nothing yet, whatever they are.
        is_sampled: flags & 1 == 1,
    };
    is_whole.then_some(ids)
}

/// `{TraceId}-{SpanId}`, then `-{SamplingState}`, then `-{ParentSpanId}`. A decision alone (`0`) is
/// no place in a trace.
fn b3(value: &[u8]) -> Option<Ids> {
    let mut parts = value.split(|byte| *byte == b'-');
    let trace = b3_trace_id(parts.next()?)?;
    let span = span_id(parts.next()?)?;
    let is_sampled = match parts.next() {
        // Nobody has decided yet: we do not.
        None | Some(b"0") => false,
        Some(b"1" | b"d") => true,
        Some(_) => return None,
    };
    if let Some(parent) = parts.next() {
        span_id(parent)?;
    }
    let ids = Ids {
        trace,
        span,
        is_sampled,
    };
    parts.next().is_none().then_some(ids)
}

/// Of 128 bits, or of 64.
fn b3_trace_id(digits: &[u8]) -> Option<u128> {
    match digits.len() {
        16 => span_id(digits).map(u128::from),
        _ => trace_id(digits),
    }
}

fn b3_sampled(value: &[u8]) -> Option<bool> {
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        // What early clients send.
        _ if value.eq_ignore_ascii_case(b"true") => Some(true),
        _ if value.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

fn trace_id(digits: &[u8]) -> Option<u128> {
    let id = (digits.len() == 32).then(|| hex(digits))??;
    (id != 0).then_some(id)
}

fn span_id(digits: &[u8]) -> Option<u64> {
    let id = (digits.len() == 16).then(|| hex(digits))??;
    u64::try_from(id).ok().filter(|id| *id != 0)
}

/// Of at most 32 digits, in lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Without the white space that may surround a value (RFC 9110 section 5.6.3).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `key=value` (Trace Context level 2, section 3.3.1.3).
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: &u8| begins(byte) || b"_-*/@".contains(byte);
    (1..=256).contains(&key.len())
        && key.first().is_some_and(begins)
        && key.iter().all(goes_on)
        && (1..=256).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && !b",=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const SPAN: u64 = 0xb7ad_6b71_6920_3331;

    fn of(fields: &[(&str, &str)]) -> Option<TraceParent> {
        let mut headers = TraceHeaders::default();
        for (name, value) in fields {
            headers.field(name.as_bytes(), value.as_bytes());
        }
        headers.parent()
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what is read")]
    fn parent(is_sampled: bool) -> Option<TraceParent> {
        Some(TraceParent {
            trace_id: TRACE,
            span_id: SPAN,
            is_sampled,
            state: None,
        })
    }

    fn state(values: &[&str]) -> Option<String> {
        let parent = ("traceparent", W3C);
        let states = values.iter().map(|value| ("tracestate", *value));
        let fields: Vec<_> = [parent].into_iter().chain(states).collect();
        let parent = of(&fields).expect("the parent holds whatever the state is");
        parent.state.map(Into::into)
    }

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_of_version_00_is_read() {
        assert_eq!(of(&[("TraceParent", W3C)]), parent(true));
        let padded = format!(" \t{W3C} ");
        assert_eq!(of(&[("traceparent", &padded)]), parent(true));
        for (flags, is_sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let value = format!("{}{flags}", &W3C[..W3C.len() - 2]);
            assert_eq!(of(&[("traceparent", &value)]), parent(is_sampled));
        }
    }

    #[test]
    fn a_traceparent_that_breaks_the_grammar_says_nothing() {
        for value in [
            "",
            "00",
            // Too short, too long, and what a version 00 must not carry.
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            // Forbidden versions and digits.
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ".0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            "00-.af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-.7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-.1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A",
            // Ids of nothing.
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            // Dashes elsewhere.
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-101",
        ] {
            assert_eq!(of(&[("traceparent", value)]), None, "{value}");
        }
    }

    #[test]
    fn a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() {
        for (begin, end, is_read) in [
            ("01", "", true),
            ("cc", "", true),
            ("cc", "-what-the-future-will-be-like", true),
            ("fe", "-", true),
            ("cc", ".what", false),
            ("cc", "0", false),
        ] {
            let value = format!("{begin}{}{end}", &W3C[2..]);
            let read = of(&[("traceparent", &value)]);
            assert_eq!(read, is_read.then_some(parent(true)).flatten(), "{value}");
        }
    }

    #[test]
    fn several_traceparents_say_nothing() {
        assert_eq!(of(&[("traceparent", W3C), ("traceparent", W3C)]), None);
        let other = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01";
        assert_eq!(of(&[("traceparent", W3C), ("traceparent", other)]), None);
        let three = [("traceparent", W3C); 3];
        assert_eq!(of(&three), None);
    }

    #[test]
    fn a_valid_tracestate_is_kept_in_order() {
        assert_eq!(state(&["foo=1,bar=2"]).as_deref(), Some("foo=1,bar=2"));
        assert_eq!(state(&["foo=1", "bar=2"]).as_deref(), Some("foo=1,bar=2"));
        for value in [
            "foo=1 \t , \t bar=2",
            "foo=1,,bar=2",
            "fw529a3039@dt=FfAAAAAA,0tenant=a b!",
            "a-_*/=x",
        ] {
            assert_eq!(state(&[value]).as_deref(), Some(value));
        }
        let most = vec!["a=1"; State::MOST].join(",");
        assert_eq!(state(&[&most]), Some(most));
        let longest = format!("a={},b={}", "x".repeat(256), "x".repeat(251));
        assert_eq!(longest.len(), State::LONGEST);
        assert_eq!(state(&[&longest]), Some(longest));
    }

    #[test]
    fn a_tracestate_that_is_invalid_or_too_long_is_left_out_whole() {
        let many = vec!["a=1"; State::MOST + 1].join(",");
        let long = format!("a={},b={}", "x".repeat(256), "x".repeat(252));
        let long_value = format!("a={}", "x".repeat(257));
        for value in [
            "",
            "foo",
            "foo=",
            "foo=1\r,bar=2",
            "=1",
            "Foo=1",
            "foo =1",
            "foo=1=2",
            "-a=1",
            "foo=\x7f",
            "foo=é",
            &many,
            &long,
            &long_value,
        ] {
            assert_eq!(state(&[value]), None, "{value}");
        }
        assert_eq!(state(&["foo=1", "bar"]), None);
        assert_eq!(state(&["foo=1", &long]), None);
    }

    #[test]
    fn b3_in_one_field_is_read() {
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (more, is_sampled) in [
            ("", false),
            ("-0", false),
            ("-1", true),
            ("-d", true),
            ("-1-05e3ac9a4f6e3b90", true),
        ] {
            let value = format!("{ids}{more}");
            assert_eq!(of(&[("b3", &value)]), parent(is_sampled), "{value}");
        }
        let short = of(&[("B3", "8448eb211c80319c-b7ad6b7169203331-1")]).expect("64 bits");
        assert_eq!(short.trace_id, 0x8448_eb21_1c80_319c);
        for more in ["-", "-2", "-1-", "-1-0", "-1-05e3ac9a4f6e3b90-", "-D"] {
            assert_eq!(of(&[("b3", &format!("{ids}{more}"))]), None, "{more}");
        }
        for value in ["0", "1", "d", "", "0af7651916cd43dd8448eb211c80319c"] {
            assert_eq!(of(&[("b3", value)]), None, "{value}");
        }
    }

    #[test]
    fn b3_in_several_fields_is_read() {
        let trace = ("X-B3-TraceId", "0af7651916cd43dd8448eb211c80319c");
        let span = ("X-B3-SpanId", "b7ad6b7169203331");
        let also = ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90");
        for (name, value, is_sampled) in [
            ("X-B3-Sampled", "1", true),
            ("X-B3-Sampled", "True", true),
            ("X-B3-Sampled", "0", false),
            ("X-B3-Sampled", "false", false),
            ("X-B3-Sampled", "d", false),
            ("X-B3-Flags", "1", true),
            ("X-B3-Flags", "0", false),
        ] {
            let read = of(&[trace, span, also, (name, value)]);
            assert_eq!(read, parent(is_sampled), "{name}: {value}");
        }
        assert_eq!(of(&[trace, span]), parent(false));
        assert_eq!(of(&[trace, ("X-B3-Sampled", "1")]), None);
        assert_eq!(of(&[span, ("X-B3-Sampled", "1")]), None);
        assert_eq!(of(&[trace, trace, span]), None);
        let zero = ("X-B3-SpanId", "0000000000000000");
        assert_eq!(of(&[trace, zero]), None);
        let short = of(&[("x-b3-traceid", "8448eb211c80319c"), span]).expect("64 bits");
        assert_eq!(short.trace_id, 0x8448_eb21_1c80_319c);
    }

    #[test]
    fn a_valid_traceparent_comes_before_b3_and_one_field_before_several() {
        let one = ("b3", "8448eb211c80319c-05e3ac9a4f6e3b90-1");
        let several = [
            ("x-b3-traceid", "00000000000000010000000000000001"),
            ("x-b3-spanid", "0000000000000001"),
        ];
        let span = |fields: &[&[_]]| of(&fields.concat()).map(|parent| parent.span_id);
        let w3c = ("traceparent", W3C);
        assert_eq!(span(&[&several, &[one, w3c]]), Some(SPAN));
        assert_eq!(span(&[&several, &[one]]), Some(0x05e3_ac9a_4f6e_3b90));
        assert_eq!(span(&[&several]), Some(1));
        let broken = ("traceparent", "00");
        assert_eq!(span(&[&[broken, one]]), Some(0x05e3_ac9a_4f6e_3b90));
        // The state belongs to the parent beside it.
        let state = ("tracestate", "foo=1");
        let parent = of(&[one, state]).expect("a parent");
        assert_eq!(parent.state, None);
    }

    #[test]
    fn a_request_without_any_of_them_has_no_parent_and_costs_no_memory() {
        let mut headers = TraceHeaders::default();
        for name in ["host", "b2", "user-agent", "accept-lang", "content-type"] {
            headers.field(name.as_bytes(), W3C.as_bytes());
        }
        assert_eq!(headers.state.members.capacity(), 0);
        assert_eq!(headers.parent(), None);
    }
}
