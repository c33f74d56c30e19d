use httparse::Header;

use super::super::Lost;

/// How a message's head says where its body ends (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// `Transfer-Encoding`, `chunked` last.
    Chunked,
    /// `Transfer-Encoding` without `chunked`.
    Coded,
    /// `Content-Length`.
    Length(u64),
    /// Not at all.
    Unsaid,
}

impl Framing {
    /// Reads it from these fields of a message of HTTP/1.`minor`.
    ///
    /// Where two readers could understand it in two ways, as in request smuggling, it is
    /// [`Lost::Malformed`], even if RFC 9112 section 6.3 lets a server choose one.
    pub(super) fn of(minor: u8, fields: &[Header<'_>]) -> Result<Self, Lost> {
        let mut length = None;
        let mut codings: Option<Self> = None;
        for field in fields {
            if field.name.eq_ignore_ascii_case("content-length") {
                let value = decimal(field.value).ok_or(Lost::Malformed)?;
                if length.replace(value).is_some() {
                    return Err(Lost::Malformed);
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                codings = Some(Self::coded(codings, field.value)?);
            }
        }
        match (codings, length) {
            (Some(_), Some(_)) => Err(Lost::Malformed),
            // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings.
            (Some(_), None) if minor == 0 => Err(Lost::Malformed),
            (Some(codings), None) => Ok(codings),
            (None, Some(length)) => Ok(Self::Length(length)),
            (None, None) => Ok(Self::Unsaid),
        }
    }

    /// After the codings of `before`, those of one more field.
    fn coded(before: Option<Self>, value: &[u8]) -> Result<Self, Lost> {
        let mut codings = before;
        // In quotes, a comma would separate nothing.
        if value.contains(&b'"') {
            return Err(Lost::Malformed);
        }
        for coding in value.split(|byte| *byte == b',') {
            codings = match (codings, coding.trim_ascii()) {
                // Nothing comes after it, not even itself (RFC 9112 section 7).
                (Some(Self::Chunked), _) | (_, b"") => return Err(Lost::Malformed),
                (_, coding) if coding.eq_ignore_ascii_case(b"chunked") => Some(Self::Chunked),
                _ => Some(Self::Coded),
            };
        }
        codings.ok_or(Lost::Malformed)
    }
}

/// A number of nothing but digits.
fn decimal(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}
