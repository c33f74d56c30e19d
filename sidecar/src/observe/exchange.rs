use std::{
    fmt,
    time::{Duration, Instant},
};

use super::TraceParent;

/// What a request and its response are in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2: the request's content type is `application/grpc`, with or without a format
    /// such as `+proto`.
    Grpc,
}

impl Protocol {
    /// Every protocol, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

/// A method of HTTP. Only those that are registered (RFC 9110 section 9.3, RFC 5789) are told apart:
/// it is a label of metrics, which clients must not be able to invent.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// `CONNECT`.
    Connect,
    /// `DELETE`.
    Delete,
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// Any other.
    Other,
    /// `PATCH`.
    Patch,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `TRACE`.
    Trace,
}

impl Method {
    /// Every method, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Delete,
        Self::Get,
        Self::Head,
        Self::Options,
        Self::Other,
        Self::Patch,
        Self::Post,
        Self::Put,
        Self::Trace,
    ];

    /// The method of this name, which is case-sensitive.
    pub fn named(name: &[u8]) -> Self {
        match name {
            b"CONNECT" => Self::Connect,
            b"DELETE" => Self::Delete,
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// The word in logs and metrics: `_OTHER` for those that are not told apart, as OpenTelemetry has
    /// it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other => "_OTHER",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Trace => "TRACE",
        }
    }
}

/// The outcome of a gRPC call, by its number (`grpc-status`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct GrpcStatus(u8);

impl GrpcStatus {
    /// Success.
    pub const OK: Self = Self(0);
    /// What every number that is not defined is taken for.
    const UNKNOWN: Self = Self(2);
    /// The names, by number.
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];

    /// Every status, in the order of its number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).take(Self::NAMES.len()).map(Self)
    }

    /// Of the value of a `grpc-status` field; what is not defined is `UNKNOWN`.
    pub fn parse(value: &[u8]) -> Self {
        str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<u8>().ok())
            .filter(|number| usize::from(*number) < Self::NAMES.len())
            .map_or(Self::UNKNOWN, Self)
    }

    /// Whether it is the server's failure, as OpenTelemetry has it for a server's span.
    pub const fn is_failure(self) -> bool {
        // `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
        matches!(self.0, 2 | 4 | 12 | 13 | 14 | 15)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name, such as `NOT_FOUND`.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.0 as usize]
    }
}

/// How a request and its response ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// Both are whole.
    Complete,
    /// The client gave up (`RST_STREAM`), or its side of the connection ended first.
    ResetByClient,
    /// The server gave up (`RST_STREAM`), or refused the request as one it has not looked at.
    ResetByServer,
    /// The connection ended before they were whole.
    Cut,
    /// What the connection speaks was no longer followed: nobody knows how they ended.
    Unfollowed,
}

impl Outcome {
    /// Every outcome, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Complete,
        Self::ResetByClient,
        Self::ResetByServer,
        Self::Cut,
        Self::Unfollowed,
    ];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ResetByClient => "reset_by_client",
            Self::ResetByServer => "reset_by_server",
            Self::Cut => "cut",
            Self::Unfollowed => "unfollowed",
        }
    }
}

/// Text that a client or a server has chosen, fit for a line of a log: printable, without spaces,
/// quotes and backslashes, and not longer than [`Self::LONGEST`].
///
/// Every other byte is shown as `%` and two hexadecimal digits. What is cut ends with `…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Text(Box<str>);

impl Text {
    /// In bytes, before anything is escaped.
    pub const LONGEST: usize = 256;

    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        use fmt::Write as _;

        let kept = &bytes[..bytes.len().min(Self::LONGEST)];
        let mut text = String::with_capacity(kept.len());
        for byte in kept {
            match byte {
                b'"' | b'\\' => write!(text, "%{byte:02X}").expect("a string has room"),
                b'!'..=b'~' => text.push(char::from(*byte)),
                _ => write!(text, "%{byte:02X}").expect("a string has room"),
            }
        }
        if kept.len() < bytes.len() {
            text.push('…');
        }
        Self(text.into())
    }

    /// Of the path of a request, without its query, which may hold secrets.
    pub fn of_path(target: &[u8]) -> Self {
        // One more than is kept tells whether there is more.
        let target = &target[..target.len().min(Self::LONGEST + 1)];
        let end = target.iter().position(|byte| *byte == b'?');
        Self::new(&target[..end.unwrap_or(target.len())])
    }

    /// Of whom a request is for, without the user and the password that may stand before the name
    /// (RFC 9110 section 4.2.4).
    pub fn of_authority(authority: &[u8]) -> Self {
        let end = authority.iter().rposition(|byte| *byte == b'@');
        Self::new(&authority[end.map_or(0, |at| at + 1)..])
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request and its response, once both are over.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// What they are in.
    pub protocol: Protocol,
    /// The request's method.
    pub method: Method,
    /// Whom the request is for: `Host` or `:authority`.
    pub authority: Option<Text>,
    /// What the request is about, without the query; for gRPC `/package.Service/Method`.
    pub path: Option<Text>,
    /// The response's final status, or 101; `None` if none has come. Beyond 599 it is not defined,
    /// and means the same as one of class 5xx (RFC 9110 section 15).
    pub status: Option<u16>,
    /// The outcome of a gRPC call; `None` if none has come.
    pub grpc_status: Option<GrpcStatus>,
    /// When the first byte of the request passed.
    pub started: Instant,
    /// From there to the first byte of the response's final head.
    pub first_byte: Option<Duration>,
    /// From there to the last byte of either; where they are not whole, to the end of the connection,
    /// or to where it was no longer followed.
    pub duration: Duration,
    /// The request's content, without framing such as that of chunks (RFC 9112 section 7.1).
    pub request_bytes: u64,
    /// The response's content, in the same way.
    pub response_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The trace that the request says it belongs to.
    pub trace: Option<TraceParent>,
}

impl Exchange {
    /// Whether it failed on the server's side: by its gRPC status, or else its response is of class
    /// 5xx or missing, or the server gave it up.
    ///
    /// What a client gives up before there is a response is its own affair, and of what was not
    /// followed to its end nobody knows.
    pub fn has_failed(&self) -> bool {
        let is_unanswered = match self.outcome {
            Outcome::ResetByServer => return true,
            Outcome::Unfollowed | Outcome::ResetByClient => false,
            Outcome::Complete | Outcome::Cut => true,
        };
        match (self.protocol, self.grpc_status) {
            (Protocol::Grpc, Some(status)) => status.is_failure(),
            _ => self.status.map_or(is_unanswered, |status| status >= 500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_on_its_line() {
        assert_eq!(
            Text::new(b"/a b\n\"\\\xff~").as_str(),
            "/a%20b%0A%22%5C%FF~"
        );
        assert_eq!(Text::of_path(b"/shop?token=secret").as_str(), "/shop");
        let long = Text::new(&[b'a'; Text::LONGEST + 1]);
        assert_eq!(long.as_str().chars().count(), Text::LONGEST + 1);
        assert!(long.as_str().ends_with('…'));
    }

    #[test]
    fn a_status_that_is_not_defined_is_unknown() {
        assert_eq!(GrpcStatus::parse(b"0"), GrpcStatus::OK);
        assert_eq!(GrpcStatus::parse(b"5").as_str(), "NOT_FOUND");
        for value in [&b"17"[..], b"-1", b"", b"OK", b"\xff"] {
            assert_eq!(GrpcStatus::parse(value).as_str(), "UNKNOWN");
        }
        assert_eq!(GrpcStatus::all().count(), 17);
    }

    fn exchange(protocol: Protocol, status: Option<u16>, outcome: Outcome) -> Exchange {
        Exchange {
            protocol,
            method: Method::Get,
            authority: None,
            path: None,
            status,
            grpc_status: None,
            started: Instant::now(),
            first_byte: None,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            outcome,
            trace: None,
        }
    }

    #[test]
    fn the_server_has_failed_where_it_says_so_or_says_nothing() {
        use Outcome::{Complete, Cut, ResetByClient, ResetByServer, Unfollowed};

        for (status, outcome, has_failed) in [
            (Some(200), Complete, false),
            (Some(404), Complete, false),
            (Some(503), Complete, true),
            (Some(999), Complete, true),
            (Some(200), ResetByServer, true),
            (Some(200), Cut, false),
            (None, Cut, true),
            // Nobody knows what it would have said.
            (None, Unfollowed, false),
            (None, ResetByClient, false),
        ] {
            let exchange = exchange(Protocol::Http2, status, outcome);
            assert_eq!(exchange.has_failed(), has_failed, "{status:?} {outcome:?}");
        }
        for (status, has_failed) in [(b"0", false), (b"5", false), (b"2", true)] {
            let call = Exchange {
                grpc_status: Some(GrpcStatus::parse(status)),
                ..exchange(Protocol::Grpc, Some(200), Complete)
            };
            assert_eq!(call.has_failed(), has_failed, "{status:?}");
        }
    }

    #[test]
    fn every_method_is_known_by_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::named(method.as_str().as_bytes()), method);
        }
        assert_eq!(Method::named(b"get"), Method::Other);
    }
}
