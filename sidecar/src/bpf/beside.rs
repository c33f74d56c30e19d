//! Programs of others on the hooks that ours are attached to, as far as the kernel tells.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use super::{
    Error, Pins,
    sys::{self, Link},
};
use crate::pod::Cgroup;

/// What the names of our programs begin with.
const OURS: &str = "sc_";

/// A hook of the kernel's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// `connect()` to IPv4.
    Connect4,
    /// `connect()` to IPv6.
    Connect6,
    /// A packet leaves.
    Egress,
    /// `getpeername()` of IPv4.
    PeerName4,
    /// `getpeername()` of IPv6.
    PeerName6,
    /// A connection arrives.
    SkLookup,
    /// `getsockname()` of IPv4.
    SockName4,
    /// `getsockname()` of IPv6.
    SockName6,
    /// Something happens to a TCP socket.
    SockOps,
}

impl Hook {
    /// Its number, of `enum bpf_attach_type`.
    const fn number(self) -> u32 {
        match self {
            Self::Egress => 1,
            Self::SockOps => 3,
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::PeerName4 => 29,
            Self::PeerName6 => 30,
            Self::SockName4 => 31,
            Self::SockName6 => 32,
            Self::SkLookup => 36,
        }
    }
}

impl fmt::Display for Hook {
    /// As bpftool writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect4 => "cgroup_inet4_connect",
            Self::Connect6 => "cgroup_inet6_connect",
            Self::Egress => "cgroup_inet_egress",
            Self::PeerName4 => "cgroup_inet4_getpeername",
            Self::PeerName6 => "cgroup_inet6_getpeername",
            Self::SkLookup => "sk_lookup",
            Self::SockName4 => "cgroup_inet4_getsockname",
            Self::SockName6 => "cgroup_inet6_getsockname",
            Self::SockOps => "cgroup_sock_ops",
        })
    }
}

/// What a program is attached to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A cgroup above the pod's.
    Above(PathBuf),
    /// A cgroup in the pod's, of a container for one.
    Below(PathBuf),
    /// The pod's network namespace.
    Netns,
    /// The pod's cgroup.
    Pod(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(path) | Self::Below(path) | Self::Pod(path) => path.display().fmt(f),
            Self::Netns => f.write_str("the pod's network namespace"),
        }
    }
}

/// What a program leaves to others on its hook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Room {
    /// It runs, and they run.
    Shared,
    /// What is attached below runs in its place.
    Replaced,
    /// Nothing may be attached, here or below.
    None,
}

/// A program of somebody else's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// The hook.
    pub hook: Hook,
    /// Its id, as `bpftool prog` shows it.
    pub id: u32,
    /// Its name, which the kernel tells to whoever has `CAP_SYS_ADMIN`.
    pub name: Option<String>,
    /// What it is attached to.
    pub place: Place,
    /// What it leaves to ours.
    pub room: Room,
}

impl Neighbour {
    /// Is it of another sidecar?
    pub fn is_sidecars(&self) -> bool {
        self.name
            .as_ref()
            .is_some_and(|name| name.starts_with(OURS))
    }

    /// Does it keep ours from being attached to the pod's cgroup?
    pub fn is_obstacle(&self) -> bool {
        match self.place {
            Place::Above(_) => self.room == Room::None,
            // Programs on one cgroup have to agree about it.
            Place::Pod(_) => self.room != Room::Shared,
            Place::Below(_) | Place::Netns => false,
        }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hook,
            id,
            name,
            place,
            ..
        } = self;
        match name {
            Some(name) => write!(f, "{name} (program {id}) at {hook} of {place}"),
            None => write!(f, "program {id} at {hook} of {place}"),
        }
    }
}

/// The programs of others that see the sockets of a pod, those of the innermost cgroups first.
///
/// It takes `CAP_NET_ADMIN` to be told of them.
pub fn on_cgroup(cgroup: &Cgroup, pins: &Pins, hooks: &[Hook]) -> io::Result<Vec<Neighbour>> {
    let ours = programs(pins);
    let mut found = Vec::new();
    for (place, directory) in places(cgroup)? {
        for hook in hooks {
            found.extend(others(directory.as_fd(), *hook, &place, &ours)?);
        }
    }
    Ok(found)
}

/// The programs of others that choose listeners in the network namespace of this thread, in the
/// order in which they are asked.
pub fn in_netns(pins: &Pins) -> io::Result<Vec<Neighbour>> {
    let netns = File::open("/proc/thread-self/ns/net")?;
    others(
        netns.as_fd(),
        Hook::SkLookup,
        &Place::Netns,
        &programs(pins),
    )
}

/// Fails if another sidecar has captured the pod's cgroup, one above or one below, by pins of its own:
/// each would take the other's proxy for an app. Where the kernel does not say whose programs there
/// are, none is found.
pub(super) fn refuse_sidecars(cgroup: &Cgroup, pins: &Pins) -> Result<(), Error> {
    let found = on_cgroup(cgroup, pins, &[Hook::SockOps]).unwrap_or_default();
    match found.into_iter().find(Neighbour::is_sidecars) {
        Some(program) => Err(Error::OtherSidecar(program)),
        None => Ok(()),
    }
}

/// What keeps programs of ours from being attached to a pod's cgroup.
pub(super) fn obstacle(cgroup: &Cgroup, pins: &Pins) -> Option<Neighbour> {
    const HOOKS: [Hook; 8] = [
        Hook::SockOps,
        Hook::PeerName4,
        Hook::PeerName6,
        Hook::SockName4,
        Hook::SockName6,
        Hook::Connect4,
        Hook::Connect6,
        Hook::Egress,
    ];
    let found = on_cgroup(cgroup, pins, &HOOKS).ok()?;
    found.into_iter().find(Neighbour::is_obstacle)
}

/// The programs that are attached by what is pinned for a pod, by any version.
fn programs(pins: &Pins) -> Vec<u32> {
    let mut directories = pins.older().unwrap_or_default();
    for directory in &mut directories {
        directory.push("links");
    }
    let older = directories.iter().flat_map(|links| files(links));
    let links = pins.links().unwrap_or_default().into_iter().chain(older);
    links
        .filter_map(|link| Link::open(&link).and_then(|link| link.program()).ok())
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The cgroups whose programs see the sockets of a pod, the innermost first.
fn places(cgroup: &Cgroup) -> io::Result<Vec<(Place, File)>> {
    let mut places = Vec::new();
    for path in cgroup.below() {
        // A container may end meanwhile.
        if let Ok(directory) = File::open(&path) {
            places.push((Place::Below(path), directory));
        }
    }
    let own = cgroup.path().to_owned();
    places.push((Place::Pod(own.clone()), File::open(own)?));
    for path in cgroup.above()? {
        let directory = File::open(&path)?;
        places.push((Place::Above(path), directory));
    }
    Ok(places)
}

fn others(
    target: BorrowedFd<'_>,
    hook: Hook,
    place: &Place,
    ours: &[u32],
) -> io::Result<Vec<Neighbour>> {
    let attached = match sys::attached(target, hook.number()) {
        // A hook that this kernel does not have.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        attached => attached?,
    };
    let room = match (place, attached.flags) {
        (Place::Netns, _) => Room::Shared,
        (_, 0) => Room::None,
        (_, sys::ALLOW_OVERRIDE) => Room::Replaced,
        _ => Room::Shared,
    };
    let others = attached
        .programs
        .into_iter()
        .filter(|id| !ours.contains(id));
    Ok(others
        .map(|id| Neighbour {
            hook,
            id,
            name: sys::program_name(id).ok(),
            place: place.clone(),
            room,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(place: Place, room: Room) -> Neighbour {
        Neighbour {
            hook: Hook::Connect4,
            id: 7,
            name: None,
            place,
            room,
        }
    }

    #[test]
    fn a_program_above_may_be_replaced_and_one_on_the_same_cgroup_may_not() {
        let above = || Place::Above("/sys/fs/cgroup".into());
        let pod = || Place::Pod("/sys/fs/cgroup/pod".into());
        let below = || Place::Below("/sys/fs/cgroup/pod/app".into());
        for (place, room, is_obstacle) in [
            (above(), Room::Shared, false),
            (above(), Room::Replaced, false),
            (above(), Room::None, true),
            (pod(), Room::Shared, false),
            (pod(), Room::Replaced, true),
            (pod(), Room::None, true),
            (below(), Room::None, false),
        ] {
            let found = neighbour(place, room);
            assert_eq!(found.is_obstacle(), is_obstacle, "{found:?}");
        }
    }

    #[test]
    fn a_sidecar_is_known_by_the_names_of_its_programs() {
        let named = |name: &str| Neighbour {
            name: Some(name.to_owned()),
            ..neighbour(Place::Netns, Room::Shared)
        };
        assert!(named("sc_connect4").is_sidecars());
        assert!(!named("cil_sock4_conne").is_sidecars());
        assert!(!neighbour(Place::Netns, Room::Shared).is_sidecars());
    }

    #[test]
    fn a_program_is_named_with_its_hook_and_its_place() {
        let mut found = neighbour(Place::Above("/sys/fs/cgroup".into()), Room::Shared);
        assert_eq!(
            found.to_string(),
            "program 7 at cgroup_inet4_connect of /sys/fs/cgroup"
        );
        found.name = Some("cil_sock4_conne".to_owned());
        assert_eq!(
            found.to_string(),
            "cil_sock4_conne (program 7) at cgroup_inet4_connect of /sys/fs/cgroup"
        );
    }
}
