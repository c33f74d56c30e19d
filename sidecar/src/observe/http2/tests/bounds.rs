//! What others can make an observer keep and do.

use std::{collections::VecDeque, time::Instant};

use super::{
    super::{
        Http2,
        hpack::{LARGEST_LIST, LARGEST_TABLE},
        side::LONGEST_BLOCK,
        streams::MOST,
    },
    wire::{
        CONTINUATION, Conversation, DATA, END_HEADERS, END_STREAM, From, HEADERS, REQUEST,
        RESPONSE, exchanges, frame, headers, reset,
    },
};
use crate::observe::{Lost, Observation, Outcome};

/// What an observer sees that is shown everything at once.
fn watch(conversation: &Conversation) -> Vec<Observation> {
    conversation.watch_in(Instant::now(), usize::MAX)
}

fn lost(conversation: &Conversation) -> Option<Lost> {
    match watch(conversation).pop() {
        Some(Observation::Lost(lost)) => Some(lost),
        _ => None,
    }
}

/// An integer of HPACK, whose first byte has so many bits of it, and these others.
fn integer(others: u8, bits: u32, value: usize) -> Vec<u8> {
    let mask = (1 << bits) - 1;
    if value < mask {
        return vec![others | u8::try_from(value).expect("small")];
    }
    let mut bytes = vec![others | u8::try_from(mask).expect("small")];
    let mut rest = value - mask;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).expect("small") | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).expect("small"));
    bytes
}

/// A field of one letter and a value of this length.
fn field(first: u8, length: usize) -> Vec<u8> {
    let mut field = vec![first, 1, b'a'];
    field.extend(integer(0, 7, length));
    field.resize(field.len() + length, b'b');
    field
}

fn request(block: &[u8]) -> Conversation {
    Conversation::begun().client(&frame(HEADERS, END_HEADERS, 1, block))
}

#[test]
fn a_head_has_a_longest_length() {
    let fields = [field(0, 30_000), field(0, 30_000)].concat();
    let rest = field(0, LONGEST_BLOCK - fields.len() - 6);
    let block = [fields, rest].concat();
    assert_eq!(block.len(), LONGEST_BLOCK);
    assert_eq!(lost(&request(&block)), None);
    let (left, right) = block.split_at(40_000);
    let continued = |right: &[u8]| {
        Conversation::begun()
            .client(&frame(HEADERS, 0, 1, left))
            .client(&frame(CONTINUATION, END_HEADERS, 1, right))
    };
    assert_eq!(lost(&continued(right)), None);
    let longer = [right, &[0x82]].concat();
    assert_eq!(lost(&continued(&longer)), Some(Lost::HeadTooLong));
}

#[test]
fn a_head_cannot_unfold_to_much_more_than_it_is() {
    // A field that is remembered, and then told by its number, 62, again and again.
    let large = 3000;
    let times = LARGEST_LIST / (large + 33);
    let bomb = |times| [field(0x40, large), vec![0xbe; times - 1]].concat();
    assert_eq!(lost(&request(&bomb(times))), None);
    assert_eq!(lost(&request(&bomb(times + 1))), Some(Lost::HeadTooLong));
}

#[test]
fn a_table_has_a_largest_size() {
    let update = |size| [integer(0x20, 5, size), vec![0x82]].concat();
    assert_eq!(lost(&request(&update(LARGEST_TABLE))), None);
    assert_eq!(
        lost(&request(&update(LARGEST_TABLE + 1))),
        Some(Lost::Compression)
    );
}

#[test]
fn what_does_not_unfold_is_lost() {
    let bad: [&[u8]; 12] = [
        &[0x80],
        &[0xbe],
        &[0x7f],
        &[0x40],
        &[0x40, 5, b'a'],
        &[0x00, 1, b'a', 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        // The end of string, padding that is too long, and padding that is none.
        &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
        &[0x00, 0x82, 0x1f, 0xff, 0],
        &[0x00, 0x81, 0x18, 0],
        // The size of the table after a field.
        &[0x82, 0x20],
        &[0x3f, 0xff, 0xff, 0xff, 0x7f],
    ];
    for block in bad {
        let lost = request(block).lost();
        assert_eq!(lost, Some(Lost::Compression), "{block:02x?}");
    }
}

#[test]
fn requests_in_flight_have_a_largest_number() {
    let mut conversation = Conversation::begun();
    let number = |nth: usize| u32::try_from(2 * nth + 1).expect("small");
    for nth in 0..MOST {
        conversation = conversation.get(number(nth));
    }
    let seen = watch(
        &conversation
            .clone()
            .server(&headers(1, END_STREAM, RESPONSE)),
    );
    assert_eq!(exchanges(seen).len(), MOST);
    // One has ended, and another may begin.
    let full = conversation
        .server(&headers(1, END_STREAM, RESPONSE))
        .get(number(MOST));
    assert_eq!(lost(&full), None);
    let seen = watch(&full.get(number(MOST + 1)));
    assert_eq!(seen.last(), Some(&Observation::Lost(Lost::TooManyRequests)));
    assert_eq!(exchanges(seen).len(), MOST + 1);
}

#[test]
fn streams_that_are_opened_and_reset_leave_nothing_behind() {
    let mut http2 = Http2::default();
    let (mut seen, now) = (VecDeque::new(), Instant::now());
    for (from, bytes) in Conversation::begun().0 {
        let followed = match from {
            From::Client => http2.sent(&bytes, now, &mut seen),
            From::Server => http2.received(&bytes, now, &mut seen),
        };
        assert_eq!(followed, Ok(()));
    }
    let fresh = format!("{http2:?}").len();
    let count = 100_000;
    for stream in (1..).step_by(2).take(count) {
        let bytes = [headers(stream, END_STREAM, REQUEST), reset(stream, 8)].concat();
        assert_eq!(http2.sent(&bytes, now, &mut seen), Ok(()));
        seen.clear();
    }
    // All that it holds is in there.
    let after = format!("{http2:?}").len();
    assert!(after < fresh + 100, "{fresh} became {after}: {http2:?}");
    let mut seen = VecDeque::new();
    http2.end(Outcome::Cut, now, &mut seen);
    assert_eq!(seen, []);
}

#[test]
fn a_head_that_goes_on_with_nothing_costs_nothing() {
    let mut conversation = Conversation::begun().client(&frame(HEADERS, 0, 1, b""));
    let flood = frame(CONTINUATION, 0, 1, b"").repeat(100_000);
    conversation = conversation.client(&flood);
    assert_eq!(watch(&conversation), []);
}

#[test]
fn content_of_any_length_is_counted_and_not_held() {
    const LONGEST: usize = (1 << 24) - 1;
    let exchange = exchanges(watch(
        &Conversation::begun()
            .client(&headers(1, 0, REQUEST))
            .client(&frame(DATA, END_STREAM, 1, &vec![0; LONGEST]))
            .client(&frame(0xfe, 0, 0, &vec![0; LONGEST]))
            .server(&headers(1, END_STREAM, RESPONSE)),
    ))
    .pop()
    .expect("one");
    assert_eq!(exchange.request_bytes, LONGEST as u64);
    assert_eq!(exchange.outcome, Outcome::Complete);
}
