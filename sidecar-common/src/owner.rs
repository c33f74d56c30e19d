/// Version of the layout of what is pinned: the names of the maps, their keys, values and meaning.
///
/// A daemon takes over only what is of its own version. Count it up with every change that an
/// older or newer daemon would misread; a map or a program that is merely added is none. It stands
/// alone in the map `SC_ABI`, as one `u32`, in every version.
pub const ABI: u32 = 2;

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
    /// 1 if what is pinned stays when its owner ends: `sidecar init` has made it.
    pub kept: u32,
}
