//! Frames (RFC 9113 section 4), cut out of bytes that come as they come.

use std::time::Instant;

use crate::observe::Lost;

/// The frame ends its stream's half (`END_STREAM`).
pub(super) const END_STREAM: u8 = 0x01;
/// The frame is an acknowledgement (`ACK`).
const ACK: u8 = 0x01;
/// The frame ends a header block (`END_HEADERS`).
pub(super) const END_HEADERS: u8 = 0x04;
/// There is padding (`PADDED`).
const PADDED: u8 = 0x08;
/// There are fields of priority (`PRIORITY`).
const PRIORITY: u8 = 0x20;

/// Length of the head of every frame.
const HEAD: usize = 9;
/// The longest prefix: that of `GOAWAY`.
const LONGEST_PREFIX: usize = 8;

/// Cuts bytes into frames. It holds the head and the fixed fields of one frame and nothing of its
/// content, whatever its length.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before the first byte of a head.
    #[default]
    Between,
    /// In the head.
    Head(Gathered<HEAD>, Instant),
    /// In the fixed fields before the content; so many bytes of the payload follow them.
    Prefix(Frame, Gathered<LONGEST_PREFIX>, u32),
    /// In the content; so many bytes of it are to come, and so many of padding.
    Content(Frame, u32, u32),
}

/// The first bytes of something whose length is known.
#[derive(Clone, Copy, Debug)]
struct Gathered<const N: usize> {
    bytes: [u8; N],
    have: usize,
    wanted: usize,
}

/// What is known of a frame once its content begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// What it is.
    pub(super) kind: Kind,
    /// Its flags, which mean something by its kind only.
    flags: u8,
    /// The stream it is of; 0 for the connection.
    pub(super) stream: u32,
    /// When its first byte passed.
    pub(super) began: Instant,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// More of a header block.
    Continuation,
    /// Content of a request or response.
    Data,
    /// The sender looks at no stream above this one of those that its peer opens.
    GoAway { last: u32 },
    /// A header block begins.
    Headers,
    /// Of no consequence to what is observed, or unknown.
    Other,
    /// The header block of a request that the server makes for its client begins.
    PushPromise,
    /// A stream ends at once.
    ResetStream { code: u32 },
    /// How the sender wants to be spoken to.
    Settings { is_ack: bool },
}

/// A part of a frame.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// The content begins.
    Begin,
    /// Some of the content, without fixed fields and padding.
    Content(&'a [u8]),
    /// The last byte has passed.
    End,
}

impl Reader {
    /// Takes the next part off the front of `bytes`; `None` if it needs more of them.
    pub(super) fn next<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        now: Instant,
    ) -> Result<Option<(Frame, Part<'a>)>, Lost> {
        loop {
            match &mut self.state {
                State::Between if bytes.is_empty() => return Ok(None),
                State::Between => self.state = State::Head(Gathered::new(HEAD), now),
                State::Head(head, began) => {
                    if !head.gather(bytes) {
                        return Ok(None);
                    }
                    let (frame, prefix, rest) = parse_head(head.bytes, *began)?;
                    self.state = State::Prefix(frame, Gathered::new(prefix), rest);
                }
                State::Prefix(frame, prefix, rest) => {
                    if !prefix.gather(bytes) {
                        return Ok(None);
                    }
                    let mut frame = *frame;
                    let padding = frame.take_prefix(prefix.bytes);
                    let content = rest.checked_sub(padding).ok_or(Lost::Malformed)?;
                    self.state = State::Content(frame, content, padding);
                    return Ok(Some((frame, Part::Begin)));
                }
                State::Content(frame, 0, 0) => {
                    let frame = *frame;
                    self.state = State::Between;
                    return Ok(Some((frame, Part::End)));
                }
                State::Content(..) if bytes.is_empty() => return Ok(None),
                State::Content(_, 0, padding) => {
                    take(bytes, padding);
                }
                State::Content(frame, content, _) => {
                    return Ok(Some((*frame, Part::Content(take(bytes, content)))));
                }
            }
        }
    }
}

impl<const N: usize> Gathered<N> {
    fn new(wanted: usize) -> Self {
        Self {
            bytes: [0; N],
            have: 0,
            wanted,
        }
    }

    /// Takes what is missing; whether nothing is any more.
    fn gather(&mut self, from: &mut &[u8]) -> bool {
        let (taken, rest) = from.split_at(from.len().min(self.wanted - self.have));
        self.bytes[self.have..][..taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        *from = rest;
        self.have == self.wanted
    }
}

/// Takes at most so many bytes, and counts them off.
fn take<'a>(bytes: &mut &'a [u8], count: &mut u32) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(bytes.len().min(*count as usize));
    *count -= u32::try_from(taken.len()).expect("not more than there were");
    *bytes = rest;
    taken
}

/// Reads the head of a frame: the frame, the length of its prefix, and that of what follows it.
fn parse_head(head: [u8; HEAD], began: Instant) -> Result<(Frame, usize, u32), Lost> {
    let [length @ .., kind, flags, _, _, _, _] = head;
    let [_, _, _, _, _, stream @ ..] = head;
    let [high, middle, low] = length;
    let length = u32::from_be_bytes([0, high, middle, low]);
    let stream = u32::from_be_bytes(stream) & !RESERVED;
    let frame = Frame {
        kind: Kind::numbered(kind, flags),
        flags,
        stream,
        began,
    };
    if !frame.fits(length) {
        return Err(Lost::Malformed);
    }
    let prefix = frame.prefix();
    let rest = length.checked_sub(prefix).ok_or(Lost::Malformed)?;
    Ok((frame, prefix as usize, rest))
}

/// Whether these may be the first bytes of settings, which are no acknowledgement.
pub(super) fn may_be_settings(bytes: &[u8]) -> bool {
    const FIXED: [Option<u8>; HEAD] = {
        let zero = Some(0);
        [zero, zero, None, Some(0x04), zero, zero, zero, zero, zero]
    };
    let is_possible = |(byte, fixed): (&u8, Option<u8>)| match fixed {
        Some(fixed) => *byte == fixed,
        // The length, of settings of 6 bytes each.
        None => byte.is_multiple_of(6),
    };
    bytes.iter().zip(FIXED).all(is_possible)
}

/// The bit before the number of a stream, which means nothing.
const RESERVED: u32 = 1 << 31;

impl Kind {
    fn numbered(number: u8, flags: u8) -> Self {
        match number {
            0x00 => Self::Data,
            0x01 => Self::Headers,
            0x03 => Self::ResetStream { code: 0 },
            0x04 => Self::Settings {
                is_ack: flags & ACK != 0,
            },
            0x05 => Self::PushPromise,
            0x07 => Self::GoAway { last: 0 },
            0x09 => Self::Continuation,
            _ => Self::Other,
        }
    }
}

impl Frame {
    /// It ends its stream's half.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.has(END_STREAM)
    }

    /// It ends a header block.
    pub(super) fn ends_headers(&self) -> bool {
        self.has(END_HEADERS)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is_padded(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise) && self.has(PADDED)
    }

    /// Whether a frame of this kind may have this length, and be of this stream.
    fn fits(&self, length: u32) -> bool {
        let is_of_connection = self.stream == 0;
        match self.kind {
            Kind::Continuation | Kind::Data | Kind::Headers | Kind::PushPromise => {
                !is_of_connection
            }
            Kind::GoAway { .. } => is_of_connection,
            Kind::Other => true,
            Kind::ResetStream { .. } => !is_of_connection && length == 4,
            Kind::Settings { is_ack } => {
                is_of_connection && length.is_multiple_of(6) && (!is_ack || length == 0)
            }
        }
    }

    /// Length of the fixed fields before the content.
    fn prefix(&self) -> u32 {
        let padding = u32::from(self.is_padded());
        match self.kind {
            Kind::Headers if self.has(PRIORITY) => padding + 5,
            Kind::Data | Kind::Headers => padding,
            Kind::PushPromise => padding + 4,
            Kind::ResetStream { .. } => 4,
            Kind::GoAway { .. } => 8,
            Kind::Continuation | Kind::Other | Kind::Settings { .. } => 0,
        }
    }

    /// Reads the fixed fields, and returns the length of the padding.
    fn take_prefix(&mut self, prefix: [u8; LONGEST_PREFIX]) -> u32 {
        let [a, b, c, d, ..] = prefix;
        let number = u32::from_be_bytes([a, b, c, d]);
        match &mut self.kind {
            Kind::ResetStream { code } => *code = number,
            Kind::GoAway { last } => *last = number & !RESERVED,
            _ => {}
        }
        if self.is_padded() { a.into() } else { 0 }
    }
}
