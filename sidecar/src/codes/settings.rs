use super::{Explained, advise};

pub(super) fn texts() -> Vec<Explained> {
    vec![(
        "refused",
        advise(
            "Changed settings were refused; those of before are kept.",
            "The log says what is wrong, and in which line. `sidecar policy check --config FILE` \
             says it before anything changes.",
        ),
    )]
}
