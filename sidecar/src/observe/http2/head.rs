//! What is kept of a header block. Fields that nobody asks for are not even copied.

use super::grpc;
use crate::observe::{GrpcStatus, Method, Text, TraceHeaders};

/// Takes the fields of one header block, in order.
pub(super) trait Fields: Default {
    /// Looks at one field, whose name is in lower case.
    fn field(&mut self, name: &[u8], value: &[u8]);
}

/// The head of a request, or its trailers.
#[derive(Debug, Default)]
pub(super) struct RequestHead {
    pub(super) method: Option<Method>,
    pub(super) path: Option<Text>,
    pub(super) is_grpc: bool,
    /// Preferred to `host` (RFC 9113 section 8.3.1).
    pub(super) authority: Option<Text>,
    pub(super) host: Option<Text>,
    pub(super) trace: TraceHeaders,
}

impl Fields for RequestHead {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":method" => self.method = Some(Method::named(value)),
            // The first of each counts. A block may refer to one thousands of times, and each text
            // costs far more than the byte that asks for it.
            b":path" if self.path.is_none() => self.path = Some(Text::of_path(value)),
            b":authority" if self.authority.is_none() => {
                self.authority = Some(Text::of_authority(value));
            }
            b"host" if self.host.is_none() => self.host = Some(Text::of_authority(value)),
            b":path" | b":authority" | b"host" => {}
            b"content-type" => self.is_grpc = grpc::is_content_type(value),
            _ => self.trace.field(name, value),
        }
    }
}

/// The head of a response, or its trailers.
#[derive(Debug, Default)]
pub(super) struct ResponseHead {
    pub(super) status: Option<Status>,
    pub(super) grpc_status: Option<GrpcStatus>,
}

/// The status of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    /// The response itself is to come (RFC 9110 section 15.2).
    Interim,
    /// Of the response itself, 200 to 999.
    Final(u16),
}

impl Fields for ResponseHead {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" => self.status = Status::parse(value),
            grpc::STATUS => self.grpc_status = Some(GrpcStatus::parse(value)),
            _ => {}
        }
    }
}

impl Status {
    fn parse(value: &[u8]) -> Option<Self> {
        let [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] = value else {
            return None;
        };
        let status = value
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        Some(if status < 200 {
            Self::Interim
        } else {
            Self::Final(status)
        })
    }
}
