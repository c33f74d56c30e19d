use std::time::Instant;

use super::super::Lost;

/// Gathers the head of a message: its lines up to an empty one (RFC 9112 section 2.1).
///
/// One that comes in one piece is not copied. Each byte is looked at once, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// When its first byte passed.
    begun: Option<Instant>,
    /// What has come of it, if that is not the whole.
    kept: Vec<u8>,
    /// Where in its lines these bytes end.
    lines: Lines,
}

/// A head, whole.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Its first line to its empty one.
    pub(super) bytes: &'a [u8],
    /// When its first byte passed.
    pub(super) begun: Instant,
    /// So many of the latest bytes belong to it.
    pub(super) taken: usize,
}

impl Head {
    /// The longest that is followed, in bytes.
    pub(super) const LONGEST: usize = 64 * 1024;

    /// When its first byte passed; `None` before that.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// How many bytes have been looked at.
    #[cfg(test)]
    pub(super) fn looked_at(&self) -> usize {
        self.lines.seen
    }

    /// How much memory is taken for what has come, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.kept.capacity()
    }

    /// Goes on with these bytes, of which there must be some; gives the head once it is whole.
    ///
    /// A first line that `is_fit` says no to is [`Lost::NotHttp`], at once: what is no head may never
    /// end. It is asked about it only if the head is not whole by then.
    pub(super) fn read<'a>(
        &'a mut self,
        bytes: &'a [u8],
        now: Instant,
        is_fit: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Whole<'a>>, Lost> {
        let begun = *self.begun.get_or_insert(now);
        let bytes = &bytes[..bytes.len().min(Self::LONGEST - self.kept.len())];
        if let Some(taken) = self.lines.end(bytes) {
            let bytes = if self.kept.is_empty() {
                &bytes[..taken]
            } else {
                self.kept.extend_from_slice(&bytes[..taken]);
                &self.kept
            };
            return Ok(Some(Whole {
                bytes,
                begun,
                taken,
            }));
        }
        let first_line = self.lines.first_end;
        let is_new = first_line.is_some_and(|end| end > self.kept.len());
        self.kept.extend_from_slice(bytes);
        if let Some(end) = first_line.filter(|_| is_new)
            && !is_fit(&self.kept[..end])
        {
            return Err(Lost::NotHttp);
        }
        if self.kept.len() == Self::LONGEST {
            return Err(Lost::HeadTooLong);
        }
        Ok(None)
    }
}

/// Finds an empty line. Lines end with a line feed, before which there may be a carriage return
/// (RFC 9112 section 2.2).
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What has come of the latest line.
    line: Line,
    /// How many bytes have been looked at.
    seen: usize,
    /// How many of them are the first line.
    first_end: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    /// Nothing.
    #[default]
    Empty,
    /// A carriage return.
    Return,
    /// More.
    Text,
}

impl Lines {
    /// Goes on with these bytes; gives how many of them there are up to the end of an empty line.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        for feed in memchr::memchr_iter(b'\n', bytes) {
            let is_empty = matches!(
                (self.line, &bytes[start..feed]),
                (Line::Empty, b"" | b"\r") | (Line::Return, b"")
            );
            start = feed + 1;
            self.line = Line::Empty;
            self.first_end.get_or_insert(self.seen + start);
            if is_empty {
                return Some(start);
            }
        }
        self.line = match (self.line, &bytes[start..]) {
            (line, b"") => line,
            (Line::Empty, b"\r") => Line::Return,
            _ => Line::Text,
        };
        self.seen += bytes.len();
        None
    }
}
