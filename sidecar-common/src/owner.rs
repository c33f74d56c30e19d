/// Version of the layout of what is pinned: the names of the maps, their keys, values and meaning.
///
/// A daemon takes over only what is of its own version. Count it up with every change that an
/// older or newer daemon would misread; a map or a program that is merely added is none. It stands
/// alone in the map `SC_ABI`, as one `u32`, in every version.
pub const ABI: u32 = 3;

/// Who serves a pod. It stands alone in the map `SC_OWNER`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Owner {
    /// Cookie of the owner's first inbound listener, which no other socket of this boot has; 0
    /// before anybody has served.
    pub cookie: u64,
    /// Cookie of the pod's network namespace; 0 if the kernel does not tell (before 5.14).
    pub netns: u64,
    /// Process id of the owner, as it sees itself; 0 before anybody has served.
    pub pid: u32,
    /// Whether what is pinned stays when its owner ends: 0 if not, or for whom
    /// ([`KEPT_BY_INIT`](Self::KEPT_BY_INIT), [`KEPT_BY_AGENT`](Self::KEPT_BY_AGENT)).
    pub kept: u32,
}

impl Owner {
    /// `sidecar init` has made it, for whoever serves the pod next.
    pub const KEPT_BY_INIT: u32 = 1;
    /// The agent of the node has made it, for the next agent.
    pub const KEPT_BY_AGENT: u32 = 2;
}
