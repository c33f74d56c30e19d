use super::{Explained, advise, note};

pub(super) fn texts() -> Vec<Explained> {
    vec![
        (
            "ring_full",
            advise(
                "The sidecar was too slow to read what the kernel side told of a socket; the same as \
                 the event `statistics_lost`.",
                "Nothing is wrong with connections: only what is shown of them lacks some. See that \
                 the sidecar is not starved of CPU.",
            ),
        ),
        (
            "unknown_socket",
            note(
                "The socket is of a sidecar that was replaced and finishes what is open, or of a \
                 connection that was refused as soon as it was accepted (`overloaded`, `fd_limit`, \
                 `not_steered`).",
            ),
        ),
    ]
}
