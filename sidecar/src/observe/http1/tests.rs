mod made_up;

use std::{
    cell::Cell,
    iter,
    time::{Duration, Instant},
};

use super::*;
use crate::observe::{
    Exchange, Observer,
    conversation::{
        Step::{self, Client, ClientEnds, Server, ServerEnds},
        take, watch,
    },
    testing::{line, lines, observations},
};

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// What is told of these two.
const GOT: [&str; 2] = ["began", "GET shop /a 200 0/5 complete"];

/// A response with this head, which is given without its empty line, and this body.
fn response(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes()
}

/// A request with this head, in the same way, with a `Host`.
fn request(head: &str, body: &str) -> Vec<u8> {
    let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let end = if fields.is_empty() { "" } else { "\r\n" };
    format!("{line} HTTP/1.1\r\nHost: shop\r\n{fields}{end}\r\n{body}").into_bytes()
}

#[test]
fn requests_of_one_connection_follow_each_other() {
    assert_eq!(
        lines(&[Client(GET), Server(OK), Client(GET), Server(OK)]),
        [GOT, GOT].concat()
    );
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let asked = [
        request("GET /1", ""),
        request("POST /2\r\nContent-Length: 3", "abc"),
        request("HEAD /3", ""),
    ]
    .concat();
    let answers = [
        response("200 OK\r\nContent-Length: 1", "1"),
        response("404 Not Found\r\nContent-Length: 2", "22"),
        response("200 OK\r\nContent-Length: 3", ""),
    ]
    .concat();
    assert_eq!(
        lines(&[Client(&asked), Server(&answers)]),
        [
            "began",
            "began",
            "began",
            "GET shop /1 200 0/1 complete",
            "POST shop /2 404 3/2 complete",
            "HEAD shop /3 200 0/0 complete",
        ]
    );
}

#[test]
fn more_requests_than_are_kept_are_not_followed() {
    let full = GET.repeat(Pipeline::LONGEST);
    let answered = OK.repeat(Pipeline::LONGEST);
    let seen = lines(&[Client(&full), Server(&answered)]);
    assert_eq!(seen.len(), 2 * Pipeline::LONGEST);
    assert!(!seen.iter().any(|line| line.contains("lost")));

    let seen = lines(&[Client(&full), Client(GET), Server(&answered)]);
    let given_up = seen
        .iter()
        .filter(|line| line.ends_with("- 0/0 unfollowed"));
    assert_eq!(given_up.count(), Pipeline::LONGEST);
    assert_eq!(
        seen.last().map(String::as_str),
        Some("lost too_many_requests")
    );
}

#[test]
fn a_body_in_chunks_is_content_without_framing() {
    let chunks = "5\r\nhello\r\n00A;name=\"a value\";b\r\n0123456789\r\n0\r\n";
    for trailers in ["\r\n", "Digest: x\r\nExpires: 0\r\n\r\n"] {
        let body = format!("{chunks}{trailers}");
        let post = request("POST /\r\nTransfer-Encoding: chunked", &body);
        let ok = response("200 OK\r\nTransfer-Encoding: gzip, Chunked", &body);
        assert_eq!(
            lines(&[Client(&post), Server(&ok), Client(GET), Server(OK)]),
            [["began", "POST shop / 200 15/15 complete"], GOT].concat(),
            "{trailers:?}"
        );
    }
}

#[test]
fn a_broken_chunk_is_not_guessed_at() {
    for body in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        " 1\r\na\r\n",
        "1\na\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1;a=b\nc",
        "1;a\0b\r\n",
        "1\rx",
        "10000000000000000\r\n",
        "0\n\r\n",
    ] {
        let post = request("POST /\r\nTransfer-Encoding: chunked", body);
        let seen = lines(&[Client(&post), Server(OK)]);
        assert_eq!(
            seen.last().map(String::as_str),
            Some("lost malformed"),
            "{body:?}"
        );
        assert_eq!(seen.len(), 3, "{body:?}: {seen:?}");
    }
}

#[test]
fn some_responses_have_no_body_whatever_they_say() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
        for framing in [
            "Content-Length: 9",
            "Transfer-Encoding: chunked",
            "Server: s",
        ] {
            let asked = request(&format!("{method} /"), "");
            let answer = response(&format!("{status} X\r\n{framing}"), "");
            let told = format!("{method} shop / {status} 0/0 complete");
            assert_eq!(
                lines(&[Client(&asked), Server(&answer), Client(GET), Server(OK)]),
                [["began", &told], GOT].concat()
            );
        }
    }
}

#[test]
fn a_body_without_length_ends_with_its_side_of_the_connection() {
    let answer = b"HTTP/1.0 200 OK\r\n\r\nall of this";
    let whole = "GET shop /a 200 0/11 complete";
    assert_eq!(
        lines(&[Client(GET), Server(answer), ServerEnds, ClientEnds]),
        ["began", whole]
    );
    // The client may end its own side as soon as it has asked.
    assert_eq!(
        lines(&[Client(GET), ClientEnds, Server(answer), ServerEnds]),
        ["began", whole]
    );
    // Without that end, nobody knows whether it is whole.
    assert_eq!(
        lines(&[Client(GET), Server(answer)]),
        ["began", "GET shop /a 200 0/11 cut"]
    );
    // So is one with other codings than that of chunks.
    let coded = response("200 OK\r\nTransfer-Encoding: gzip", "all of this");
    assert_eq!(
        lines(&[Client(GET), Server(&coded), ServerEnds, ClientEnds]),
        ["began", whole]
    );
}

#[test]
fn http_1_0_is_followed() {
    let asked = b"GET / HTTP/1.0\r\n\r\n";
    let kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    let told = ["began", "GET - / 200 0/2 complete"];
    assert_eq!(
        lines(&[Client(asked), Server(kept), Client(asked), Server(kept)]),
        [told, told].concat()
    );
}

#[test]
fn the_last_response_may_say_that_the_connection_closes() {
    let last = response("200 OK\r\nConnection: close\r\nContent-Length: 5", "hello");
    assert_eq!(
        lines(&[Client(GET), Server(&last), ServerEnds, ClientEnds]),
        GOT
    );
}

#[test]
fn the_final_response_is_what_counts() {
    let post = request("POST /\r\nExpect: 100-continue\r\nContent-Length: 3", "");
    let hints = response("103 Early Hints\r\nLink: </style.css>", "");
    assert_eq!(
        lines(&[
            Client(&post),
            Server(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Client(b"abc"),
            Server(&hints),
            Server(OK),
        ]),
        ["began", "POST shop / 200 3/5 complete"]
    );
}

#[test]
fn a_response_may_come_before_its_request_is_whole() {
    let post = request("POST /\r\nContent-Length: 6", "abc");
    let told = ["began", "POST shop / 200 6/5 complete"];
    // It has ended when both have.
    assert_eq!(
        lines(&[
            Client(&post),
            Server(OK),
            Client(b"def"),
            Client(GET),
            Server(OK)
        ]),
        [told, GOT].concat()
    );
    let (head, body) = OK.split_at(OK.len() - 5);
    assert_eq!(
        lines(&[Client(&post), Server(head), Client(b"def"), Server(body)]),
        told
    );
    // A server that will not have it closes.
    assert_eq!(
        lines(&[Client(&post), Server(OK), ServerEnds, ClientEnds]),
        ["began", "POST shop / 200 3/5 complete"]
    );
}

#[test]
fn a_response_may_come_before_the_head_of_its_request_is_whole() {
    let (first, rest) = GET.split_at(20);
    let refused = response("408 Request Timeout\r\nContent-Length: 0", "");
    assert_eq!(
        lines(&[Client(first), Server(&refused), ServerEnds]),
        ["began", "_OTHER - - 408 0/0 complete"]
    );
    assert_eq!(
        lines(&[
            Client(first),
            Server(OK),
            Client(rest),
            Client(GET),
            Server(OK)
        ]),
        [GOT, GOT].concat()
    );
}

#[test]
fn an_upgrade_ends_what_is_followed() {
    let asked = request("GET /chat\r\nConnection: Upgrade\r\nUpgrade: websocket", "");
    let switched = response(
        "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "\x01\x02frames",
    );
    let told = "GET shop /chat 101 0/0 complete";
    assert_eq!(
        lines(&[
            Client(&asked),
            Server(&switched),
            Client(b"\x81\x85more"),
            Client(GET)
        ]),
        ["began", told, "lost upgraded"]
    );
    // One that is refused is a response like any other.
    assert_eq!(
        lines(&[Client(&asked), Server(OK), Client(GET), Server(OK)]),
        [["began", "GET shop /chat 200 0/5 complete"], GOT].concat()
    );
}

#[test]
fn a_tunnel_ends_what_is_followed() {
    let asked = b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n";
    let granted = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
    let told = ["began", "CONNECT db:5432 - 200 0/0 complete", "lost tunnel"];
    assert_eq!(
        lines(&[
            Client(asked),
            Server(granted),
            Client(b"\0anything"),
            Server(OK)
        ]),
        told
    );
    // A client may even not wait for it.
    assert_eq!(
        lines(&[Client(asked), Client(b"\0anything"), Server(granted)]),
        told
    );
    let refused = response("403 Forbidden\r\nContent-Length: 2", "no");
    let refusal = ["began", "CONNECT db:5432 - 403 0/2 complete"];
    assert_eq!(
        lines(&[Client(asked), Server(&refused), Client(GET), Server(OK)]),
        [refusal, GOT].concat()
    );
    assert_eq!(
        lines(&[Client(asked), Client(b"\0anything"), Server(&refused)]),
        refusal
    );
}

#[test]
fn a_head_that_is_none_is_not_guessed_at() {
    for head in [
        "GET / HTTP/1.1\r\nHost: shop\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : shop\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\na: \0\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
        "\0\n\n",
    ] {
        assert_eq!(
            lines(&[
                Client(GET),
                Server(OK),
                Client(head.as_bytes()),
                Client(GET)
            ]),
            [&GOT[..], &["lost malformed"]].concat(),
            "{head:?}"
        );
        assert_eq!(
            lines(&[Client(&[GET, head.as_bytes()].concat())]),
            ["began", "GET shop /a - 0/0 unfollowed", "lost malformed"],
            "{head:?}"
        );
    }
    for head in [
        "HTTP/1.1 200 OK\r\nServer: s\r\n folded\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "+PONG\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(
            lines(&[Client(GET), Server(head.as_bytes()), Server(OK)]),
            ["began", "GET shop /a - 0/0 unfollowed", "lost malformed"],
            "{head:?}"
        );
    }
}

#[test]
fn a_length_that_is_said_twice_is_not_guessed_at() {
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1\r\ncontent-length: 1",
        "Content-Length: 1, 1",
        "Content-Length: +1",
        "Content-Length: ",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: a=\", chunked\"",
        "Transfer-Encoding: ",
    ] {
        let post = request(&format!("POST /\r\n{fields}"), "a");
        assert_eq!(lines(&[Client(&post)]), ["lost malformed"], "{fields:?}");
        let answer = response(&format!("200 OK\r\n{fields}"), "a");
        assert_eq!(
            lines(&[Client(GET), Server(&answer)]),
            ["began", "GET shop /a 200 0/0 unfollowed", "lost malformed"],
            "{fields:?}"
        );
    }
    // Of a request nobody can say where this ends.
    let coded = request("POST /\r\nTransfer-Encoding: gzip", "a");
    assert_eq!(lines(&[Client(&coded)]), ["lost malformed"]);
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(lines(&[Client(old)]), ["lost malformed"]);
}

#[test]
fn a_response_to_nothing_is_not_followed() {
    assert_eq!(
        lines(&[Client(GET), Server(OK), Server(OK)]),
        [&GOT[..], &["lost malformed"]].concat()
    );
    let post = request("POST /\r\nContent-Length: 3", "a");
    assert_eq!(
        lines(&[Client(&post), Server(OK), Server(OK)]),
        ["began", "POST shop / 200 1/5 unfollowed", "lost malformed"]
    );
}

/// A head of this length.
fn long(first: &[u8], length: usize) -> Vec<u8> {
    let mut head = [first, b"Long: "].concat();
    head.resize(length - 4, b'a');
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// What is seen if it comes in whole, in pieces of this size, and byte by byte.
fn seen_of_long(conversation: &[Step<'_>]) -> Vec<Observation> {
    let now = Instant::now();
    let seen = |size: usize| {
        let pieces = conversation
            .iter()
            .flat_map(|step| step.bytes().chunks(size).map(|bytes| step.with(bytes)));
        watch(now, pieces)
    };
    let whole = seen(usize::MAX);
    assert_eq!(seen(1), whole);
    assert_eq!(seen(16 * 1024), whole);
    whole
}

#[test]
fn a_head_is_followed_to_its_limit() {
    let fits = long(b"GET / HTTP/1.1\r\n", Head::LONGEST);
    assert_eq!(seen_of_long(&[Client(&fits), Server(OK)]).len(), 2);
    let answer = long(b"HTTP/1.1 204 No Content\r\n", Head::LONGEST);
    assert_eq!(seen_of_long(&[Client(GET), Server(&answer)]).len(), 2);

    let too_long = long(b"GET / HTTP/1.1\r\n", Head::LONGEST + 1);
    assert_eq!(
        seen_of_long(&[Client(&too_long)]),
        [Observation::Lost(Lost::HeadTooLong)]
    );
    let answer = long(b"HTTP/1.1 204 No Content\r\n", Head::LONGEST + 1);
    assert_eq!(
        seen_of_long(&[Client(GET), Server(&answer)]).last(),
        Some(&Observation::Lost(Lost::HeadTooLong))
    );
    let fields = "a: b\r\n".repeat(FIELDS + 1);
    let many = format!("GET / HTTP/1.1\r\n{fields}\r\n");
    assert_eq!(
        observations(&[Client(many.as_bytes())]),
        [Observation::Lost(Lost::HeadTooLong)]
    );
}

#[test]
fn what_the_target_names_comes_before_the_host() {
    for (target, told) in [
        ("http://user:secret@other:81/b?c", "other:81 /b"),
        ("http://other", "other /"),
        ("http://other?q", "other /"),
        ("/to?next=http://other/", "shop /to"),
        ("*", "shop *"),
    ] {
        let asked = request(&format!("GET {target}"), "");
        assert_eq!(
            lines(&[Client(&asked), Server(OK)])[1],
            format!("GET {told} 200 0/5 complete")
        );
    }
}

#[test]
fn no_user_of_a_host_is_told() {
    let asked = b"GET / HTTP/1.1\r\nHost: user:secret@shop\r\n\r\n";
    assert_eq!(
        lines(&[Client(asked), Server(OK)])[1],
        "GET shop / 200 0/5 complete"
    );
}

#[test]
fn empty_lines_before_a_request_are_none_of_it() {
    assert_eq!(
        lines(&[
            Client(GET),
            Server(OK),
            Client(b"\r\n\r\n"),
            Client(GET),
            Server(OK)
        ]),
        [GOT, GOT].concat()
    );
}

#[test]
fn a_client_that_leaves_first_has_given_up() {
    let given_up = ["began", "GET shop /a - 0/0 reset_by_client"];
    assert_eq!(lines(&[Client(GET), ClientEnds]), given_up);
    assert_eq!(lines(&[Client(GET), ClientEnds, ServerEnds]), given_up);
    assert_eq!(
        lines(&[Client(GET), ServerEnds, ClientEnds]),
        ["began", "GET shop /a - 0/0 cut"]
    );
    let half = &OK[..OK.len() - 2];
    assert_eq!(
        lines(&[Client(GET), Server(half), ClientEnds]),
        ["began", "GET shop /a 200 0/3 reset_by_client"]
    );
}

#[test]
fn times_are_taken_where_bytes_pass() {
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut observer = Observer::default();
    for (milliseconds, step) in [
        (0, Client(GET)),
        (0, Server(OK)),
        // Empty lines before it are not the first of it.
        (0, Client(b"\r\n")),
        (1, Client(b"POST / HTTP/1.1\r\nCon")),
        (5, Client(b"tent-Length: 2\r\n\r\na")),
        (10, Server(b"HTTP/1.1 100 Continue\r\n\r\n")),
        (20, Server(b"H")),
        (30, Server(b"TTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")),
        (40, Server(b"b")),
        (50, Client(b"b")),
    ] {
        take(&mut observer, step, at(milliseconds));
    }
    let told: Vec<Exchange> = iter::from_fn(|| observer.pop())
        .filter_map(|observation| match observation {
            Observation::Ended(exchange) => Some(*exchange),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].started, at(1));
    assert_eq!(told[1].first_byte, Some(Duration::from_millis(19)));
    assert_eq!(told[1].duration, Duration::from_millis(49));
}

#[test]
fn each_byte_of_a_head_is_looked_at_once() {
    let long = long(b"GET / HTTP/1.1\r\n", Head::LONGEST);
    let mut head = Head::default();
    let now = Instant::now();
    let judged = Cell::new(0);
    let is_fit = |_: &[u8]| {
        judged.set(judged.get() + 1);
        true
    };
    let (before, last) = long.split_at(long.len() - 1);
    for byte in before.chunks(1) {
        let read = head
            .read(byte, now, is_fit)
            .expect("no longer than allowed");
        assert!(read.is_none());
    }
    assert_eq!(head.looked_at(), before.len());
    assert_eq!(judged.get(), 1);
    let whole = head
        .read(last, now, is_fit)
        .expect("no longer than allowed");
    assert_eq!(whole.map(|whole| whole.bytes.len()), Some(Head::LONGEST));
}

#[test]
fn a_head_in_one_piece_is_not_copied() {
    let mut head = Head::default();
    let whole = head
        .read(GET, Instant::now(), |_| unreachable!())
        .expect("a short head")
        .expect("a whole head");
    assert_eq!(whole.bytes.as_ptr_range(), GET.as_ptr_range());
}

#[test]
fn what_is_kept_is_bounded() {
    /// In bytes, as the documentation has it.
    const BOUND: usize = 512 * 1024;
    let now = Instant::now();
    let mut seen = VecDeque::new();
    let mut http1 = Http1::default();
    // Text that grows when it is made fit for a log.
    let text = "\u{e9}".repeat(1000);
    let head = format!("GET /{text} HTTP/1.1\r\nHost: {text}\r\nLong: ");
    let mut last = long(head.as_bytes(), Head::LONGEST);
    for _ in 0..Pipeline::LONGEST {
        http1
            .sent(&last, now, &mut seen)
            .expect("as many as are kept");
    }
    last.truncate(Head::LONGEST - 1);
    for bytes in last.chunks(1000) {
        http1
            .sent(bytes, now, &mut seen)
            .expect("no longer than is kept");
    }
    let mut answer = long(b"HTTP/1.1 200 OK\r\n", Head::LONGEST);
    answer.truncate(Head::LONGEST - 1);
    for bytes in answer.chunks(1000) {
        http1
            .received(bytes, now, &mut seen)
            .expect("no longer than is kept");
    }
    let kept: usize = [&http1.client, &http1.server]
        .into_iter()
        .map(|part| match part {
            Part::Head(head) => head.room(),
            Part::Body(_) => 0,
        })
        .sum();
    assert!(kept >= 2 * (Head::LONGEST - 1), "{kept}");
    let kept = kept + http1.pipeline.room();
    assert!(kept <= BOUND, "{kept} bytes");
}
