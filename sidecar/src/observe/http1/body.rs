use super::{super::Lost, chunked::Chunked};

/// Skips the body of a message.
#[derive(Debug)]
pub(super) enum Body {
    /// In chunks.
    Chunked(Chunked),
    /// So many more bytes.
    Length(u64),
    /// What comes until the connection ends.
    UntilClose,
}

/// What was skipped.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Skipped {
    /// So many bytes belong to the body.
    pub(super) taken: usize,
    /// So many of them are content, not framing.
    pub(super) content: u64,
    /// Was that all of it? An error if what follows cannot be part of it.
    pub(super) is_whole: Result<bool, Lost>,
}

impl Body {
    /// Goes on with these bytes, of which there must be some.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Skipped {
        match self {
            Self::Chunked(chunked) => chunked.skip(bytes),
            Self::Length(left) => {
                let taken = at_most(*left, bytes);
                *left -= taken as u64;
                Skipped {
                    taken,
                    content: taken as u64,
                    is_whole: Ok(*left == 0),
                }
            }
            Self::UntilClose => Skipped {
                taken: bytes.len(),
                content: bytes.len() as u64,
                is_whole: Ok(false),
            },
        }
    }
}

/// How many of these bytes there are, up to a limit.
pub(super) fn at_most(limit: u64, bytes: &[u8]) -> usize {
    usize::try_from(limit).map_or(bytes.len(), |limit| limit.min(bytes.len()))
}
