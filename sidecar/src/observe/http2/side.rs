//! What one side of a connection says: its frames, and the header blocks that they carry.

use std::time::Instant;

use super::{
    frame::{Frame, Kind, Part, Reader},
    head::Fields,
    hpack::Decoder,
};
use crate::observe::Lost;

/// The most that a header block may have, encoded, in bytes.
pub(super) const LONGEST_BLOCK: usize = 64 * 1024;
/// What is kept of the memory that blocks are gathered in.
const KEPT: usize = 4 * 1024;

/// Follows one side, which sends header blocks with these fields.
#[derive(Debug)]
pub(super) struct Side<H> {
    reader: Reader,
    decoder: Decoder,
    /// What there is of the header block that is open.
    block: Vec<u8>,
    /// Which block is open.
    open: Option<Open<H>>,
    /// The first frame has come, which are the settings (RFC 9113 section 3.4).
    has_greeted: bool,
}

/// A header block of which more is to come. No other frame may come before it is whole.
#[derive(Debug)]
struct Open<H> {
    /// The frame that began it.
    frame: Frame,
    /// It has its last frame.
    is_ending: bool,
    /// What is wanted of it.
    head: H,
}

/// Something that a side has said of a stream.
#[derive(Debug)]
pub(super) enum Event<H> {
    /// So many bytes of content.
    Content { stream: u32, bytes: u64 },
    /// This was all.
    End { stream: u32 },
    /// A head or trailers.
    Head {
        stream: u32,
        head: H,
        /// When its first byte passed.
        began: Instant,
        /// There is nothing more.
        is_end: bool,
    },
    /// It gives the stream up.
    Reset { stream: u32, code: u32 },
    /// It looks at no stream above this one.
    GoAway { last: u32 },
}

impl<H> Default for Side<H> {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            decoder: Decoder::default(),
            block: Vec::new(),
            open: None,
            has_greeted: false,
        }
    }
}

impl<H: Fields> Side<H> {
    /// Takes bytes off the front until they have said something; `None` if they are used up first.
    pub(super) fn next(
        &mut self,
        bytes: &mut &[u8],
        now: Instant,
    ) -> Result<Option<Event<H>>, Lost> {
        while let Some((frame, part)) = self.reader.next(bytes, now)? {
            let event = match part {
                Part::Begin => {
                    self.begin(frame)?;
                    None
                }
                Part::Content(content) => self.content(frame, content)?,
                Part::End => self.end(frame)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// A frame begins: may it come now?
    fn begin(&mut self, frame: Frame) -> Result<(), Lost> {
        if !self.has_greeted && frame.kind != (Kind::Settings { is_ack: false }) {
            return Err(Lost::Malformed);
        }
        self.has_greeted = true;
        match (&mut self.open, frame.kind) {
            (Some(open), Kind::Continuation) if open.frame.stream == frame.stream => {
                open.is_ending = frame.ends_headers();
            }
            (None, Kind::Headers | Kind::PushPromise) => {
                self.open = Some(Open {
                    frame,
                    is_ending: frame.ends_headers(),
                    head: H::default(),
                });
            }
            (Some(_), _) | (None, Kind::Continuation) => return Err(Lost::Malformed),
            (None, _) => {}
        }
        Ok(())
    }

    /// Some of a frame's content.
    fn content(&mut self, frame: Frame, content: &[u8]) -> Result<Option<Event<H>>, Lost> {
        match frame.kind {
            Kind::Data => {
                return Ok(Some(Event::Content {
                    stream: frame.stream,
                    bytes: content.len() as u64,
                }));
            }
            Kind::Continuation | Kind::Headers | Kind::PushPromise => {
                if self.block.len() + content.len() > LONGEST_BLOCK {
                    return Err(Lost::HeadTooLong);
                }
                self.block.extend_from_slice(content);
            }
            Kind::GoAway { .. }
            | Kind::Other
            | Kind::ResetStream { .. }
            | Kind::Settings { .. } => {}
        }
        Ok(None)
    }

    /// A frame has ended.
    fn end(&mut self, frame: Frame) -> Result<Option<Event<H>>, Lost> {
        let stream = frame.stream;
        Ok(match frame.kind {
            Kind::Data if frame.ends_stream() => Some(Event::End { stream }),
            Kind::Continuation | Kind::Headers | Kind::PushPromise => return self.end_block(),
            Kind::ResetStream { code } => Some(Event::Reset { stream, code }),
            Kind::GoAway { last } => Some(Event::GoAway { last }),
            Kind::Data | Kind::Other | Kind::Settings { .. } => None,
        })
    }

    /// Reads the header block that is open, once it is whole. All of them are read, for later ones
    /// to be understood.
    fn end_block(&mut self) -> Result<Option<Event<H>>, Lost> {
        let Some(Open {
            frame, mut head, ..
        }) = self.open.take_if(|open| open.is_ending)
        else {
            return Ok(None);
        };
        self.decoder
            .decode(&self.block, |name, value| head.field(name, value))?;
        self.block.clear();
        self.block.shrink_to(KEPT);
        // What the server would have been asked is no request: nobody waits for the answer.
        Ok((frame.kind == Kind::Headers).then(|| Event::Head {
            stream: frame.stream,
            head,
            began: frame.began,
            is_end: frame.ends_stream(),
        }))
    }
}
