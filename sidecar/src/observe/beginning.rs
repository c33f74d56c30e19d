use super::{Lost, hello::Hello, http2};

/// Judges what a connection speaks by its client's first bytes, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// Those that have come, as long as they do not tell.
    first: Vec<u8>,
    /// What began like TLS.
    hello: Option<Box<Hello>>,
}

/// What the first bytes of a client show.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something that is not followed.
    Other(Lost),
    /// Nothing yet.
    Short,
}

impl Beginning {
    /// Goes on with these bytes.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Verdict {
        if let Some(hello) = &mut self.hello {
            return hello.read(bytes).map_or(Verdict::Short, Verdict::Other);
        }
        let kept = self.first.len();
        // No verdict takes more.
        let more = &bytes[..bytes.len().min(LONGEST_METHOD + 1)];
        self.first.extend_from_slice(more);
        match Hello::is_begun_by(&self.first) {
            Some(true) => {
                self.hello = Some(Box::default());
                self.first.truncate(kept);
                let first = std::mem::take(&mut self.first);
                match self.judge(&first) {
                    Verdict::Short => self.judge(bytes),
                    verdict => verdict,
                }
            }
            Some(false) => {
                let verdict = Verdict::of(&self.first);
                if verdict != Verdict::Short {
                    self.first.truncate(kept);
                }
                verdict
            }
            None => Verdict::Short,
        }
    }

    /// What had come before the bytes that told.
    pub(super) fn first(self) -> Vec<u8> {
        self.first
    }

    /// What it is if nothing more of it comes; `None` if nothing has come at all.
    pub(super) fn cut(&self) -> Option<Lost> {
        if self.hello.is_some() {
            Some(Hello::unread())
        } else if self.first.is_empty() {
            None
        } else {
            Some(Lost::NotHttp)
        }
    }
}

/// Longer than any registered method of HTTP, and than the preface of HTTP/2.
const LONGEST_METHOD: usize = 32;

impl Verdict {
    /// Of first bytes that are not of TLS: all that have come, or more than [`LONGEST_METHOD`].
    fn of(first: &[u8]) -> Self {
        if first.starts_with(http2::PREFACE) {
            return Self::Http2;
        }
        if http2::PREFACE.starts_with(first) {
            return Self::Short;
        }
        match first.iter().position(|byte| !is_token(*byte)) {
            Some(end @ 1..=LONGEST_METHOD) if first[end] == b' ' => Self::Http1,
            None if first.len() <= LONGEST_METHOD => Self::Short,
            _ => Self::Other(Lost::NotHttp),
        }
    }
}

/// Is it one of those that a method is made of (RFC 9110 section 5.6.2)?
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
