use std::mem::MaybeUninit;

use httparse::Status;

use super::{
    super::{Lost, Method},
    FIELDS,
    body::Body,
    chunked::Chunked,
    framing::Framing,
    unfit,
};

/// What the head of a response says (RFC 9112 section 4).
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// 100 to 999.
    pub(super) status: u16,
    framing: Result<Framing, Lost>,
}

impl ResponseHead {
    /// Can a response begin with this line, of which only the last byte is a line feed?
    pub(super) fn can_begin_with(line: &[u8]) -> bool {
        let parsed = httparse::Response::new(&mut []).parse(line);
        matches!(parsed, Ok(Status::Partial))
    }

    /// Reads a whole head. Where it cannot even begin like that, it is [`Lost::NotHttp`].
    pub(super) fn parse(head: &[u8]) -> Result<Self, Lost> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            &mut fields,
        );
        match parsed {
            Ok(Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Lost::HeadTooLong),
            _ => return Err(unfit(head, Self::can_begin_with)),
        }
        match (response.code, response.version) {
            (Some(status @ 100..), Some(minor)) => Ok(Self {
                status,
                framing: Framing::of(minor, response.headers),
            }),
            _ => Err(Lost::Malformed),
        }
    }

    /// Will another follow for the same request (RFC 9110 section 15.2)?
    pub(super) fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..200)
    }

    /// The body behind it, if it answers a request of this method (RFC 9112 section 6.3).
    pub(super) fn body(self, method: Method) -> Result<Option<Body>, Lost> {
        if method == Method::Head || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(None);
        }
        Ok(match self.framing? {
            Framing::Chunked => Some(Body::Chunked(Chunked::default())),
            Framing::Coded | Framing::Unsaid => Some(Body::UntilClose),
            Framing::Length(0) => None,
            Framing::Length(length) => Some(Body::Length(length)),
        })
    }
}
