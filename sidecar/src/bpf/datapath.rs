use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapError, PerCpuArray, SkStorage, SockMap},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Program, ProgramError,
        SkLookup, SockOps, links::FdLink,
    },
};

use super::{
    Error, Events, Listeners, RuleMaps, Sockets, listening::Listening, logger, object::object,
    pins::Pins,
};
use crate::pod::Cgroup;

/// Follows every socket of the pod.
const SOCK_OPS: &str = "sc_sock_ops";
/// Chooses the socket for new connections.
const SK_LOOKUP: &str = "sc_sk_lookup";
/// Lets nothing leave past the proxy where the mode is strict.
const EGRESS: &str = "sc_egress";
/// Redirect and hide the redirection. The last two change where connections go, so they come last.
const SOCK_ADDR: [&str; 6] = [
    "sc_peername4",
    "sc_peername6",
    "sc_sockname4",
    "sc_sockname6",
    "sc_connect4",
    "sc_connect6",
];

/// The kernel side of one pod: loaded, then attached step by step.
///
/// The steps are in the order in which nothing can go astray: first the hook that follows
/// sockets, then listeners that it knows, then what steers connections to them.
pub struct Datapath {
    /// The programs and the maps that nobody took yet. Dropping it unloads what is not pinned.
    ebpf: Ebpf,
    /// Facts about sockets, shared with the proxy.
    sockets: Arc<Sockets>,
    /// Where links and maps are pinned.
    pins: Pins,
}

impl Datapath {
    /// Loads programs and maps; attaches nothing.
    pub fn load(cgroup: &Cgroup, pins: Pins) -> Result<Self, Error> {
        // What the daemon would not log is not reported: the verifier removes it.
        let level = log::max_level() as u8;
        let mut ebpf = EbpfLoader::new()
            .override_global(logger::LEVEL, &level, true)
            .load(object()?)?;
        for (name, program) in ebpf.programs_mut() {
            let loaded = match program {
                Program::CgroupSkb(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                Program::SkLookup(program) => program.load(),
                Program::SockOps(program) => program.load(),
                _ => Ok(()),
            };
            loaded.map_err(|source| Error::Program {
                program: known_name(name),
                source,
            })?;
        }
        // The compiler's own maps (`.rodata`) are frozen and tell nothing; bpffs refuses their names.
        for (name, map) in ebpf.maps().filter(|(name, _)| name.starts_with("SC_")) {
            pins.pin_map(name, map)?;
        }
        let listening =
            Listening::new(take(&mut ebpf, "SC_LISTENING", HashMap::try_from)?, cgroup)?;
        let facts = take(&mut ebpf, "SC_SOCKETS", SkStorage::try_from)?;
        Ok(Self {
            ebpf,
            sockets: Arc::new(Sockets::new(facts, listening)),
            pins,
        })
    }

    /// Facts about sockets, as the proxy needs them.
    pub fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.sockets)
    }

    /// The directory of what is pinned.
    pub fn pins(&self) -> &Path {
        self.pins.directory()
    }

    /// The programs, for whoever forwards their messages.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The counters of what the programs decided.
    pub fn events(&mut self) -> Result<Events, Error> {
        take(&mut self.ebpf, Events::MAP, PerCpuArray::try_from).map(Events::new)
    }

    /// The tables that the programs decide by, to be filled before anything is attached.
    pub fn rules(&mut self) -> Result<RuleMaps, Error> {
        RuleMaps::open(|name| take(&mut self.ebpf, name, Ok))
    }

    /// Begins to follow the pod's sockets, and notes those that listen already.
    pub fn follow(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        let program: &mut SockOps = self.program(SOCK_OPS);
        let link = program
            .attach(cgroup.as_fd(), CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|source| attach_error(SOCK_OPS, cgroup.to_string(), source))?;
        self.pin(SOCK_OPS, FdLink::try_from(link))?;
        self.sockets.listening().scan()
    }

    /// Steers connections to these listeners: from here on the pod is captured.
    pub fn steer(
        &mut self,
        cgroup: &Cgroup,
        netns: BorrowedFd<'_>,
        listeners: &Listeners,
    ) -> Result<(), Error> {
        let mut slots =
            SockMap::try_from(self.map("SC_LISTENERS")).map_err(|source| Error::Map {
                map: "SC_LISTENERS",
                source,
            })?;
        for (slot, listener) in listeners.by_slot() {
            put("SC_LISTENERS", slots.set(slot as u32, listener, 0))?;
        }

        let program: &mut SkLookup = self.program(SK_LOOKUP);
        let link = program
            .attach(netns)
            .and_then(|id| program.take_link(id))
            .map_err(|source| {
                attach_error(SK_LOOKUP, "the pod's network namespace".into(), source)
            })?;
        self.pin(SK_LOOKUP, Ok(link.into()))?;

        for name in SOCK_ADDR {
            let program: &mut CgroupSockAddr = self.program(name);
            let link = program
                .attach(cgroup.as_fd(), CgroupAttachMode::Single)
                .and_then(|id| program.take_link(id))
                .map_err(|source| attach_error(name, cgroup.to_string(), source))?;
            self.pin(name, FdLink::try_from(link))?;
        }
        let program: &mut CgroupSkb = self.program(EGRESS);
        let link = program
            .attach(
                cgroup.as_fd(),
                CgroupSkbAttachType::Egress,
                CgroupAttachMode::Single,
            )
            .and_then(|id| program.take_link(id))
            .map_err(|source| attach_error(EGRESS, cgroup.to_string(), source))?;
        self.pin(EGRESS, FdLink::try_from(link))?;
        // Only now: a sidecar that died has kept the pod closed until here.
        self.pins.remove_older()
    }

    /// Detaches everything and removes the pins.
    pub fn detach(self) -> Result<(), Error> {
        self.pins.remove()
    }

    fn pin(
        &self,
        program: &'static str,
        link: Result<FdLink, aya::programs::links::LinkError>,
    ) -> Result<(), Error> {
        self.pins.pin_link(
            program,
            link.map_err(|source| Error::Link { program, source })?,
        )
    }

    fn program<'a, P>(&'a mut self, name: &str) -> &'a mut P
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .expect("the object has every program named here");
        program
            .try_into()
            .expect("the object's programs have the types used here")
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.ebpf
            .map_mut(name)
            .expect("the object has every map named here")
    }
}

/// Opens this process' network namespace.
pub fn own_netns() -> std::io::Result<File> {
    File::open("/proc/self/ns/net")
}

fn take<T>(
    ebpf: &mut Ebpf,
    map: &'static str,
    convert: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, Error> {
    let taken = ebpf
        .take_map(map)
        .expect("the object has every map named here");
    convert(taken).map_err(|source| Error::Map { map, source })
}

fn put(map: &'static str, result: Result<(), MapError>) -> Result<(), Error> {
    result.map_err(|source| Error::Map { map, source })
}

fn attach_error(program: &'static str, target: String, source: ProgramError) -> Error {
    Error::Attach {
        program,
        target,
        source,
    }
}

/// The static name of one of our programs, for errors.
fn known_name(name: &str) -> &'static str {
    SOCK_ADDR
        .into_iter()
        .chain([SOCK_OPS, SK_LOOKUP, EGRESS])
        .find(|known| *known == name)
        .unwrap_or("of an unknown name")
}
