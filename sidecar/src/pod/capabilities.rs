use caps::{CapSet, Capability};

/// What attaching programs takes, and nothing more.
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
];

/// The capabilities that this process lacks to attach programs.
pub fn missing_capabilities() -> Vec<&'static str> {
    // The kernel takes it for either of the others where bpf() is concerned.
    if held(Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED
        .into_iter()
        .filter(|&(capability, _)| !held(capability))
        .map(|(_, name)| name)
        .collect()
}

/// Whether the verifier takes from this process what it takes from root.
pub fn has_perfmon() -> bool {
    held(Capability::CAP_PERFMON) || held(Capability::CAP_SYS_ADMIN)
}

fn held(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}
