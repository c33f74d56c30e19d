use std::fmt;

use super::Text;

/// Why a connection is not followed, from here on or from its start. Its bytes flow on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// The header compression of HTTP/2 does not add up, or wants more memory than is given.
    Compression,
    /// The head of a request or of a response is longer, or has more fields, than is read.
    HeadTooLong,
    /// It began as HTTP and went on as something else.
    Malformed,
    /// The client's first bytes are no request, or not a whole one.
    NotHttp,
    /// The server spoke before its client did.
    ServerFirst,
    /// The app's own TLS.
    Tls(Box<TlsHello>),
    /// More requests are in flight than are kept.
    TooManyRequests,
    /// A `CONNECT` was granted: what follows is a tunnel.
    Tunnel,
    /// The protocol was changed by `Upgrade`, such as to a WebSocket.
    Upgraded,
}

/// What the beginning of an app's own TLS says in the clear (RFC 8446 section 4.1.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsHello {
    /// The server's name (RFC 6066 section 3).
    pub sni: Option<Text>,
    /// The protocols that the client offers (RFC 7301), the preferred one first, with commas
    /// between them.
    pub alpn: Option<Text>,
}

impl Lost {
    /// The words of [`as_str`](Self::as_str), in the order in which documents list them.
    pub const WORDS: [&str; 9] = [
        "compression",
        "head_too_long",
        "malformed",
        "not_http",
        "server_first",
        "tls",
        "too_many_requests",
        "tunnel",
        "upgraded",
    ];

    /// The word in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Compression => "compression",
            Self::HeadTooLong => "head_too_long",
            Self::Malformed => "malformed",
            Self::NotHttp => "not_http",
            Self::ServerFirst => "server_first",
            Self::Tls(_) => "tls",
            Self::TooManyRequests => "too_many_requests",
            Self::Tunnel => "tunnel",
            Self::Upgraded => "upgraded",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
