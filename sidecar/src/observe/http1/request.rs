use std::mem::MaybeUninit;

use httparse::Status;

use super::{
    super::{Lost, Method, Text, TraceHeaders, TraceParent},
    FIELDS,
    body::Body,
    chunked::Chunked,
    framing::Framing,
    unfit,
};

/// What the head of a request says (RFC 9112 section 3).
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) authority: Option<Text>,
    pub(super) path: Option<Text>,
    pub(super) trace: Option<TraceParent>,
    /// `None` if no body follows.
    pub(super) body: Option<Body>,
}

impl RequestHead {
    /// Can a request begin with this line, of which only the last byte is a line feed?
    pub(super) fn can_begin_with(line: &[u8]) -> bool {
        let parsed = httparse::Request::new(&mut []).parse(line);
        matches!(parsed, Ok(Status::Partial))
    }

    /// Reads a whole head. Where it cannot even begin like that, it is [`Lost::NotHttp`].
    pub(super) fn parse(head: &[u8]) -> Result<Self, Lost> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, &mut fields) {
            Ok(Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Lost::HeadTooLong),
            _ => return Err(unfit(head, Self::can_begin_with)),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(Lost::Malformed);
        };

        let method = Method::named(method.as_bytes());
        let target = Target::of(method, target.as_bytes());
        let mut trace = TraceHeaders::default();
        let mut host = None;
        for field in &*request.headers {
            trace.field(field.name.as_bytes(), field.value);
            if field.name.eq_ignore_ascii_case("host") {
                host = Some(field.value);
            }
        }
        let body = match Framing::of(minor, request.headers)? {
            // What follows belongs to the tunnel, if one is granted (RFC 9110 section 9.3.6).
            _ if method == Method::Connect => None,
            Framing::Chunked => Some(Body::Chunked(Chunked::default())),
            // Nobody could tell where it ends.
            Framing::Coded => return Err(Lost::Malformed),
            Framing::Length(0) | Framing::Unsaid => None,
            Framing::Length(length) => Some(Body::Length(length)),
        };
        Ok(Self {
            method,
            // RFC 9112 section 3.2.2: what the target names comes before `Host`.
            authority: target.authority.or(host).map(Text::of_authority),
            path: target.path.map(Text::of_path),
            trace: trace.parent(),
            body,
        })
    }
}

/// What a request is for, in any of its forms (RFC 9112 section 3.2).
struct Target<'a> {
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    fn of(method: Method, target: &'a [u8]) -> Self {
        if method == Method::Connect {
            return Self {
                authority: Some(target),
                path: None,
            };
        }
        let scheme = target
            .windows(3)
            .position(|window| window == b"://")
            .filter(|_| !matches!(target.first(), Some(b'/' | b'*')));
        let Some(scheme) = scheme else {
            return Self {
                authority: None,
                path: Some(target),
            };
        };
        let rest = &target[scheme + 3..];
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Self {
            authority: Some(authority),
            path: Some(if path.starts_with(b"/") { path } else { b"/" }),
        }
    }
}
