use super::{Explained, advise, note};

/// One for each of the words of [`Lost`](crate::observe::Lost).
pub(super) fn texts() -> Vec<Explained> {
    vec![
        (
            "compression",
            advise(
                "The header compression of HTTP/2 does not add up, or wants more memory than is \
                 given.",
                "Look at the app that sends it: its peer would have to end the connection, too.",
            ),
        ),
        (
            "head_too_long",
            advise(
                "The head of a request or of a response is longer than is kept.",
                "Look for cookies or tokens that grow: many servers refuse such heads.",
            ),
        ),
        (
            "malformed",
            advise(
                "It began as HTTP and went on as something else.",
                "If the port carries another protocol, nothing is wrong. Else look at the app that \
                 sends it.",
            ),
        ),
        (
            "not_http",
            note("The client's first bytes are no request: the app speaks another protocol."),
        ),
        (
            "server_first",
            note("The server spoke before its client did: the app speaks another protocol."),
        ),
        (
            "tls",
            advise(
                "The app speaks TLS of its own; the access log has its SNI and ALPN.",
                "Nothing has to be done. To see its requests, have it leave TLS to the sidecar.",
            ),
        ),
        (
            "too_many_requests",
            advise(
                "More requests are in flight on the connection than are kept.",
                "Look at the client: it does not wait for answers, or the server gives none.",
            ),
        ),
        (
            "tunnel",
            note("A `CONNECT` was granted: what follows is a tunnel."),
        ),
        (
            "upgraded",
            note("The protocol was changed by `Upgrade`, such as to a WebSocket."),
        ),
    ]
}
