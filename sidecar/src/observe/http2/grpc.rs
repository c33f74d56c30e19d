//! gRPC over HTTP/2, as its fields show it.

/// The field of a response, or of its trailers, that says how a call ended.
pub(super) const STATUS: &[u8] = b"grpc-status";

/// Whether content of this type is of gRPC: `application/grpc`, with or without a format or
/// parameters. gRPC-Web is none, which keeps its statuses in the content.
pub(super) fn is_content_type(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    value
        .split_at_checked(TYPE.len())
        .is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(TYPE)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for value in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC; charset=utf-8",
        ] {
            assert!(is_content_type(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "application/grp",
            "application/grpc-web+proto",
            "application/json",
        ] {
            assert!(!is_content_type(value.as_bytes()), "{value}");
        }
    }
}
