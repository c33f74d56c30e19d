use super::{
    super::Lost,
    body::{Skipped, at_most},
    head::Lines,
};

/// Skips a body in chunks, with their extensions and its trailers (RFC 9112 section 7.1).
///
/// None of it is kept, so none of it has to be bounded. A line of a chunk that only ends with a
/// line feed is [`Lost::Malformed`]: others may not take it for an end.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    place: Place,
}

#[derive(Debug, Default)]
enum Place {
    /// Before the first digit of a chunk's size.
    #[default]
    Start,
    /// In a chunk's size, this so far.
    Size(u64),
    /// Behind the size of the chunk, which is this.
    Extension(u64),
    /// At the end of the line of the chunk's size.
    SizeFeed(u64),
    /// In a chunk's data, of which so much is left.
    Data(u64),
    /// Behind a chunk's data.
    DataReturn,
    /// Behind that.
    DataFeed,
    /// Behind the last chunk.
    Trailers(Lines),
}

impl Chunked {
    /// Goes on with these bytes.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Skipped {
        let mut skipped = Skipped {
            taken: 0,
            content: 0,
            is_whole: Ok(false),
        };
        while skipped.is_whole == Ok(false)
            && let rest @ [byte, ..] = &bytes[skipped.taken..]
        {
            skipped.taken += match &mut self.place {
                Place::Data(left) => {
                    let taken = at_most(*left, rest);
                    *left -= taken as u64;
                    skipped.content += taken as u64;
                    if *left == 0 {
                        self.place = Place::DataReturn;
                    }
                    taken
                }
                Place::Trailers(lines) => {
                    let end = lines.end(rest);
                    skipped.is_whole = Ok(end.is_some());
                    end.unwrap_or(rest.len())
                }
                place => {
                    match place.after(*byte) {
                        Ok(next) => *place = next,
                        Err(lost) => skipped.is_whole = Err(lost),
                    }
                    1
                }
            };
        }
        skipped
    }
}

impl Place {
    /// Of the framing, one byte further.
    fn after(&self, byte: u8) -> Result<Self, Lost> {
        Ok(match (self, byte) {
            (Self::Start, _) => Self::Size(digit(byte)?),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeFeed(*size),
            (Self::Size(size), b' ' | b'\t' | b';')
            | (Self::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => Self::Extension(*size),
            (Self::Size(size), _) => {
                let digit = digit(byte)?;
                Self::Size(size.checked_mul(16).ok_or(Lost::Malformed)? | digit)
            }
            (Self::SizeFeed(0), b'\n') => Self::Trailers(Lines::default()),
            (Self::SizeFeed(size), b'\n') => Self::Data(*size),
            (Self::DataReturn, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => Self::Start,
            _ => return Err(Lost::Malformed),
        })
    }
}

fn digit(byte: u8) -> Result<u64, Lost> {
    char::from(byte)
        .to_digit(16)
        .map(u64::from)
        .ok_or(Lost::Malformed)
}
