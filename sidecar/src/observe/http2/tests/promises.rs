//! What an observer makes of a conversation.

use std::time::{Duration, Instant};

use super::wire::{
    CALL, CONTINUATION, Conversation, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY,
    PUSH_PROMISE, REQUEST, RESPONSE, SETTINGS, block, frame, go_away, headers, reset,
};
use crate::observe::{GrpcStatus, Lost, Method, Observation, Observer, Outcome, Protocol};

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

#[test]
fn a_request_and_its_response_are_one_exchange() {
    let exchange = Conversation::begun()
        .client(&headers(
            1,
            0,
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "shop:8080"),
                (":path", "/cart/add?user=7"),
                ("host", "another"),
            ],
        ))
        .client(&frame(DATA, 0, 1, b"12345"))
        .client(&frame(DATA, END_STREAM, 1, b"67"))
        .server(&headers(1, 0, &[(":status", "201"), ("server", "x")]))
        .server(&frame(DATA, END_STREAM, 1, b"created"))
        .exchange();
    assert_eq!(exchange.protocol, Protocol::Http2);
    assert_eq!(exchange.method, Method::Post);
    assert_eq!(exchange.authority.expect("one").as_str(), "shop:8080");
    assert_eq!(exchange.path.expect("one").as_str(), "/cart/add");
    assert_eq!(exchange.status, Some(201));
    assert_eq!(exchange.grpc_status, None);
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (7, 7));
    assert_eq!(exchange.outcome, Outcome::Complete);
}

#[test]
fn a_request_without_authority_is_for_its_host() {
    let exchange = Conversation::begun()
        .client(&headers(1, 0, &[(":method", "GET"), ("host", "shop")]))
        .exchange();
    assert_eq!(exchange.authority.expect("one").as_str(), "shop");
}

#[test]
fn no_user_of_an_authority_is_told() {
    for name in [":authority", "host"] {
        let exchange = Conversation::begun()
            .client(&headers(
                1,
                0,
                &[(":method", "GET"), (name, "user:secret@shop")],
            ))
            .exchange();
        assert_eq!(exchange.authority.expect("one").as_str(), "shop", "{name}");
    }
}

#[test]
fn the_first_field_of_a_name_counts() {
    let twice = [
        (":path", "/a"),
        (":path", "/b"),
        (":authority", "a"),
        (":authority", "b"),
    ];
    let exchange = Conversation::begun()
        .client(&headers(1, 0, &twice))
        .exchange();
    assert_eq!(exchange.path.expect("one").as_str(), "/a");
    assert_eq!(exchange.authority.expect("one").as_str(), "a");
}

#[test]
fn whoever_leaves_first_has_given_up() {
    for (client_leaves, outcome) in [(true, Outcome::ResetByClient), (false, Outcome::Cut)] {
        let mut observer = Observer::default();
        let now = Instant::now();
        let hello = Conversation::begun();
        observer.sent(&hello.0[0].1, now);
        observer.sent(&headers(1, END_STREAM, REQUEST), now);
        if client_leaves {
            observer.client_ended();
        } else {
            observer.server_ended(now);
            observer.client_ended();
        }
        observer.ended(now);
        assert_eq!(observer.pop(), Some(Observation::Began(Protocol::Http2)));
        let Some(Observation::Ended(exchange)) = observer.pop() else {
            panic!("it has not ended");
        };
        assert_eq!(exchange.outcome, outcome);
    }
}

#[test]
fn times_are_of_the_first_and_the_last_byte() {
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let mut observer = Observer::default();
    let hello = Conversation::begun();
    observer.sent(&hello.0[0].1, at(0));
    observer.received(&hello.0[1].1, at(0));
    let request = headers(1, END_STREAM, REQUEST);
    observer.sent(&request[..1], at(10));
    observer.sent(&request[1..], at(20));
    observer.received(&headers(1, 0, &[(":status", "103")]), at(30));
    let response = headers(1, 0, RESPONSE);
    observer.received(&response[..1], at(40));
    observer.received(&response[1..], at(50));
    observer.received(&frame(DATA, END_STREAM, 1, b"late"), at(60));
    assert_eq!(observer.pop(), Some(Observation::Began(Protocol::Http2)));
    let Some(Observation::Ended(exchange)) = observer.pop() else {
        panic!("it has not ended");
    };
    assert_eq!(exchange.started, at(10));
    assert_eq!(exchange.first_byte, Some(Duration::from_millis(30)));
    assert_eq!(exchange.duration, Duration::from_millis(50));
}

#[test]
fn streams_are_told_apart() {
    let exchanges = Conversation::begun()
        .get(1)
        .get(3)
        .get(5)
        .server(&headers(5, END_STREAM, &[(":status", "505")]))
        .server(&headers(1, 0, &[(":status", "201")]))
        .server(&headers(3, END_STREAM, &[(":status", "303")]))
        .server(&frame(DATA, END_STREAM, 1, b"1"))
        .exchanges();
    let seen: Vec<_> = exchanges
        .iter()
        .map(|exchange| (exchange.status, exchange.response_bytes))
        .collect();
    assert_eq!(seen, [(Some(505), 0), (Some(303), 0), (Some(201), 1)]);
}

#[test]
fn padding_and_priorities_are_no_content() {
    let padded = [&[3][..], b"content", &[0; 3]].concat();
    let head = [
        &[2][..],
        &[0, 0, 0, 0, 255],
        &block(&[(":status", "200")]),
        &[0; 2],
    ]
    .concat();
    let exchange = Conversation::begun()
        .client(&headers(1, 0, REQUEST))
        .client(&frame(DATA, PADDED, 1, &padded))
        .client(&frame(DATA, PADDED | END_STREAM, 1, &[0]))
        .server(&frame(HEADERS, PADDED | PRIORITY | END_HEADERS, 1, &head))
        .server(&frame(DATA, PADDED | END_STREAM, 1, &[2, 0, 0]))
        .exchange();
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (7, 0));
    assert_eq!(exchange.status, Some(200));
    assert_eq!(exchange.outcome, Outcome::Complete);
}

#[test]
fn padding_beyond_its_frame_is_malformed() {
    for kind in [DATA, HEADERS] {
        for payload in [&[][..], &[1], &[9, 0, 0]] {
            let lost = Conversation::begun()
                .client(&headers(1, 0, REQUEST))
                .client(&frame(kind, PADDED | END_HEADERS, 1, payload))
                .lost();
            assert_eq!(lost, Some(Lost::Malformed), "{kind} {payload:?}");
        }
    }
}

#[test]
fn a_head_may_go_on_in_more_frames() {
    let head = block(REQUEST);
    let exchange = Conversation::begun()
        .client(&frame(HEADERS, END_STREAM, 1, &head[..3]))
        .client(&frame(CONTINUATION, 0, 1, b""))
        .client(&frame(CONTINUATION, 0, 1, &head[3..9]))
        .client(&frame(CONTINUATION, END_HEADERS, 1, &head[9..]))
        .server(&headers(1, END_STREAM, RESPONSE))
        .exchange();
    assert_eq!(exchange.path.expect("one").as_str(), "/cart");
    assert_eq!(exchange.outcome, Outcome::Complete);
}

#[test]
fn nothing_comes_between_the_frames_of_a_head() {
    let between = [
        frame(DATA, 0, 1, b""),
        frame(HEADERS, END_HEADERS, 3, b""),
        frame(CONTINUATION, END_HEADERS, 3, b""),
        frame(SETTINGS, 0, 0, b""),
        frame(0xbe, 0, 0, b""),
    ];
    for frame_between in between {
        let lost = Conversation::begun()
            .client(&frame(HEADERS, 0, 1, &block(REQUEST)))
            .client(&frame_between)
            .lost();
        assert_eq!(lost, Some(Lost::Malformed), "{frame_between:?}");
    }
    let lost = Conversation::begun()
        .client(&frame(CONTINUATION, END_HEADERS, 1, b""))
        .lost();
    assert_eq!(lost, Some(Lost::Malformed));
}

#[test]
fn what_cannot_be_a_frame_is_malformed() {
    let bad = [
        frame(DATA, 0, 0, b""),
        frame(HEADERS, END_HEADERS, 0, b""),
        frame(0x3, 0, 1, b"123"),
        frame(0x3, 0, 0, b"1234"),
        frame(SETTINGS, 0, 1, b""),
        frame(SETTINGS, 0, 0, b"1234567"),
        frame(SETTINGS, 1, 0, b"123456"),
        frame(0x7, 0, 0, b"1234567"),
        frame(0x7, 0, 1, b"12345678"),
        headers(2, 0, REQUEST),
    ];
    for bad in bad {
        let lost = Conversation::begun().client(&bad).lost();
        assert_eq!(lost, Some(Lost::Malformed), "{bad:?}");
    }
}

#[test]
fn a_server_that_speaks_something_else_is_malformed() {
    let hello = Conversation(Conversation::begun().0[..1].to_vec());
    let lost = hello.get(1).server(b"HTTP/1.1 400 Bad Request\r\n").lost();
    assert_eq!(lost, Some(Lost::Malformed));
}

#[test]
fn a_server_may_say_its_settings_first() {
    let [client, _] = Conversation::begun().0.try_into().expect("two");
    let settings = [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
        frame(0x8, 0, 0, &[0, 0, 1, 0]),
    ]
    .concat();
    let (start, rest) = client.1.split_at(7);
    let exchange = Conversation::default()
        .server(&settings[..5])
        .client(start)
        .server(&settings[5..])
        .client(rest)
        .get(1)
        .server(&headers(1, END_STREAM, RESPONSE))
        .exchange();
    assert_eq!(exchange.status, Some(200));
}

#[test]
fn a_server_that_says_anything_else_first_is_not_followed() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let greetings = [
        b"220 mail\r\n".to_vec(),
        vec![0, 1],
        frame(SETTINGS, 1, 0, &[]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 1, &[]),
        frame(0x6, 0, 0, &[0; 6]),
        settings.repeat(200),
    ];
    for greeting in greetings {
        let lost = Conversation::default()
            .server(&greeting)
            .client(&Conversation::begun().0[0].1)
            .lost();
        assert_eq!(lost, Some(Lost::ServerFirst), "{greeting:?}");
    }
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0"] {
        let lost = Conversation::default()
            .server(&settings)
            .client(first)
            .lost();
        assert_eq!(lost, Some(Lost::ServerFirst), "{first:?}");
    }
}

#[test]
fn frames_that_say_nothing_of_requests_are_passed_over() {
    let others = [
        frame(0x2, 0, 1, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        frame(SETTINGS, 1, 0, b""),
        frame(0x6, 0, 0, &[7; 8]),
        frame(0x8, 0, 1, &[0, 0, 1, 0]),
        frame(0xfa, 0xff, 77, &[7; 80]),
    ]
    .concat();
    let exchange = Conversation::begun()
        .client(&others)
        .client(&headers(1, 0, REQUEST))
        .server(&others)
        .server(&headers(1, 0, RESPONSE))
        .client(&others)
        .client(&frame(DATA, END_STREAM, 1, b"12"))
        .server(&others)
        .server(&frame(DATA, END_STREAM, 1, b"123"))
        .exchange();
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (2, 3));
    assert_eq!(exchange.outcome, Outcome::Complete);
}

#[test]
fn interim_responses_are_none() {
    let exchange = Conversation::begun()
        .get(1)
        .server(&headers(1, 0, &[(":status", "100")]))
        .server(&headers(1, 0, &[(":status", "103"), ("link", "x")]))
        .server(&headers(1, END_STREAM, &[(":status", "404")]))
        .exchange();
    assert_eq!(exchange.status, Some(404));
}

#[test]
fn trailers_end_both_ways() {
    let exchange = Conversation::begun()
        .client(&headers(1, 0, REQUEST))
        .client(&frame(DATA, 0, 1, b"12"))
        .client(&headers(1, END_STREAM, &[("x-sum", "3")]))
        .server(&headers(1, 0, RESPONSE))
        .server(&frame(DATA, 0, 1, b"1"))
        .server(&headers(1, END_STREAM, &[("grpc-status", "0")]))
        .exchange();
    assert_eq!(exchange.outcome, Outcome::Complete);
    assert_eq!(exchange.status, Some(200));
    // That of a call which is none means nothing.
    assert_eq!(exchange.grpc_status, None);
}

#[test]
fn a_call_has_the_status_of_its_trailers() {
    let exchange = Conversation::begun()
        .client(&headers(1, 0, CALL))
        .client(&frame(DATA, END_STREAM, 1, &[0; 5]))
        .server(&headers(1, 0, RESPONSE))
        .server(&frame(DATA, 0, 1, &[0; 5]))
        .server(&headers(1, END_STREAM, &[("grpc-status", "5")]))
        .exchange();
    assert_eq!(exchange.protocol, Protocol::Grpc);
    assert_eq!(exchange.path.expect("one").as_str(), "/shop.Cart/Add");
    let status = exchange.grpc_status.map(GrpcStatus::as_str);
    assert_eq!(status, Some("NOT_FOUND"));
}

#[test]
fn a_call_may_be_answered_with_trailers_only() {
    let fields = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
    ];
    let exchange = Conversation::begun()
        .client(&headers(1, END_STREAM, CALL))
        .server(&headers(1, END_STREAM, &fields))
        .exchange();
    let status = exchange.grpc_status.map(GrpcStatus::as_str);
    assert_eq!(
        (exchange.status, status),
        (Some(200), Some("UNIMPLEMENTED"))
    );
}

#[test]
fn a_call_may_end_without_status() {
    let exchange = Conversation::begun()
        .client(&headers(1, END_STREAM, CALL))
        .server(&headers(1, END_STREAM, &[(":status", "503")]))
        .exchange();
    assert_eq!(exchange.protocol, Protocol::Grpc);
    assert_eq!((exchange.status, exchange.grpc_status), (Some(503), None));
}

#[test]
fn either_side_may_give_up() {
    let outcome = |conversation: Conversation| conversation.exchange().outcome;
    for code in [NO_ERROR, CANCEL, 1] {
        let begun = || Conversation::begun().get(1);
        assert_eq!(
            outcome(begun().client(&reset(1, code))),
            Outcome::ResetByClient
        );
        assert_eq!(
            outcome(begun().server(&reset(1, code))),
            Outcome::ResetByServer
        );
        let answered = || begun().server(&headers(1, 0, RESPONSE));
        let by_client = answered().client(&reset(1, code)).exchange();
        assert_eq!(by_client.outcome, Outcome::ResetByClient);
        assert_eq!(by_client.status, Some(200));
        assert_eq!(
            outcome(answered().server(&reset(1, code))),
            Outcome::ResetByServer
        );
    }
}

#[test]
fn a_reset_after_the_response_is_about_the_rest_of_the_request() {
    let answered = || {
        Conversation::begun()
            .client(&headers(1, 0, REQUEST))
            .client(&frame(DATA, 0, 1, b"12"))
            .server(&headers(1, END_STREAM, &[(":status", "413")]))
    };
    let outcomes = [
        (answered().server(&reset(1, NO_ERROR)), Outcome::Complete),
        (answered().client(&reset(1, NO_ERROR)), Outcome::Complete),
        (answered().client(&reset(1, CANCEL)), Outcome::Complete),
        (answered().server(&reset(1, 2)), Outcome::ResetByServer),
        (answered().client(&reset(1, 2)), Outcome::ResetByClient),
        (answered(), Outcome::Cut),
    ];
    for (conversation, outcome) in outcomes {
        assert_eq!(conversation.exchange().outcome, outcome);
    }
}

#[test]
fn what_comes_after_a_reset_counts_for_nothing() {
    let exchanges = Conversation::begun()
        .client(&headers(1, 0, REQUEST))
        .client(&reset(1, CANCEL))
        .server(&headers(1, 0, RESPONSE))
        .server(&frame(DATA, END_STREAM, 1, b"late"))
        .client(&headers(1, END_STREAM, &[("x-sum", "3")]))
        .server(&reset(1, CANCEL))
        .get(3)
        .server(&headers(3, END_STREAM, RESPONSE))
        .exchanges();
    let outcomes: Vec<_> = exchanges
        .iter()
        .map(|exchange| (exchange.outcome, exchange.status, exchange.response_bytes))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Outcome::ResetByClient, None, 0),
            (Outcome::Complete, Some(200), 0)
        ]
    );
}

#[test]
fn a_server_that_goes_away_answers_up_to_the_last_it_names() {
    let outcomes = Conversation::begun()
        .get(1)
        .get(3)
        .server(&go_away(0x7fff_ffff))
        .get(5)
        // The bit before the number means nothing.
        .server(&go_away(1 << 31 | 3))
        // Of one that has not heard of it yet.
        .get(7)
        .server(&headers(1, END_STREAM, RESPONSE))
        .server(&headers(3, END_STREAM, RESPONSE))
        .outcomes();
    assert_eq!(
        outcomes,
        [
            Outcome::ResetByServer,
            Outcome::ResetByServer,
            Outcome::Complete,
            Outcome::Complete
        ]
    );
}

#[test]
fn a_client_that_goes_away_still_gets_its_answers() {
    let outcomes = Conversation::begun()
        .get(1)
        .client(&go_away(0))
        .server(&headers(1, END_STREAM, RESPONSE))
        .outcomes();
    assert_eq!(outcomes, [Outcome::Complete]);
}

#[test]
fn the_end_of_the_connection_cuts_what_is_in_flight() {
    let exchanges = Conversation::begun()
        .get(1)
        .client(&headers(3, 0, REQUEST))
        .server(&headers(1, 0, RESPONSE))
        .server(&frame(DATA, END_STREAM, 1, &[0; 80])[..50])
        .exchanges();
    let seen: Vec<_> = exchanges
        .iter()
        .map(|exchange| (exchange.outcome, exchange.status, exchange.response_bytes))
        .collect();
    assert_eq!(
        seen,
        [(Outcome::Cut, Some(200), 41), (Outcome::Cut, None, 0)]
    );
}

#[test]
fn what_is_pushed_is_no_request_but_keeps_the_compression_in_step() {
    // A field that is to be remembered, and then its number.
    let remembered = [&[0x40, 7][..], b":status", &[3], b"418"].concat();
    let promise = [&2u32.to_be_bytes()[..], &remembered].concat();
    let exchange = Conversation::begun()
        .get(1)
        .server(&frame(PUSH_PROMISE, END_HEADERS, 1, &promise))
        .server(&headers(2, END_STREAM, RESPONSE))
        .server(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xbe]))
        .exchange();
    assert_eq!(exchange.status, Some(418));
}

#[test]
fn streams_that_nobody_follows_keep_the_compression_in_step() {
    let remembered = [&[0x40, 7][..], b":status", &[3], b"418"].concat();
    let exchanges = Conversation::begun()
        .client(&headers(1, 0, REQUEST))
        .client(&reset(1, CANCEL))
        .server(&frame(HEADERS, END_HEADERS, 1, &remembered))
        .get(3)
        .server(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0xbe]))
        .exchanges();
    assert_eq!(exchanges[1].status, Some(418));
}

#[test]
fn a_connect_that_is_granted_ends_with_its_response() {
    let web_socket = [(":method", "CONNECT"), (":protocol", "websocket")];
    for fields in [&web_socket[..1], &web_socket] {
        let exchanges = Conversation::begun()
            .client(&headers(1, 0, fields))
            .server(&headers(1, 0, RESPONSE))
            .get(3)
            .server(&frame(DATA, 0, 1, b"tunnelled"))
            .server(&headers(3, END_STREAM, &[(":status", "404")]))
            .client(&frame(DATA, END_STREAM, 1, b"tunnelled"))
            .exchanges();
        let seen: Vec<_> = exchanges
            .iter()
            .map(|exchange| (exchange.status, exchange.outcome, exchange.response_bytes))
            .collect();
        let complete = Outcome::Complete;
        assert_eq!(seen, [(Some(200), complete, 0), (Some(404), complete, 0)]);
    }
}

#[test]
fn a_connect_that_is_refused_is_like_any_request() {
    let exchange = Conversation::begun()
        .client(&headers(1, 0, &[(":method", "CONNECT")]))
        .server(&headers(1, 0, &[(":status", "403")]))
        .server(&frame(DATA, END_STREAM, 1, b"no"))
        .client(&frame(DATA, END_STREAM, 1, b""))
        .exchange();
    assert_eq!((exchange.status, exchange.response_bytes), (Some(403), 2));
    assert_eq!(exchange.method, Method::Connect);
}

#[test]
fn a_status_that_is_none_is_not_told() {
    for status in ["", "99", "099", "20x", "2000"] {
        let exchange = Conversation::begun()
            .get(1)
            .server(&headers(1, END_STREAM, &[(":status", status)]))
            .exchange();
        assert_eq!(exchange.status, None, "{status}");
        assert!(exchange.first_byte.is_some());
    }
}
