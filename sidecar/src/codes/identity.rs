use super::{Explained, advise};

/// One for each source of an identity, and of what to trust.
pub(super) fn texts() -> Vec<Explained> {
    vec![
        (
            "crl",
            advise(
                "A revocation list gave nothing usable; what it said before holds.",
                "The log says what is wrong with it. Before it was ever read, connections that need \
                 an identity wait: `sidecar check` reads it.",
            ),
        ),
        (
            "dev_ca",
            advise(
                "The development CA issued no certificate; the one before is used.",
                "See that its directory can be read and written: `sidecar check` says what is wrong.",
            ),
        ),
        (
            "federated_bundle",
            advise(
                "The bundle of another trust domain gave nothing usable; what it said before holds.",
                "The log says what is wrong with it. Before it was ever read, workloads of that \
                 domain are refused.",
            ),
        ),
        (
            "files",
            advise(
                "Certificate, key or trust bundle gave nothing usable; what was taken before is \
                 used.",
                "`sidecar check` reads the three files and says what is wrong.",
            ),
        ),
        (
            "workload_api",
            advise(
                "The Workload API gave no identity; the one before is used.",
                "See that the agent runs and has an entry for this workload: `sidecar check` asks \
                 it.",
            ),
        ),
    ]
}
