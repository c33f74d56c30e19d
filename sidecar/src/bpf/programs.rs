use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};

use super::{
    Error, Pins, beside, logger,
    maps::MAPS,
    object::object,
    refusal,
    sys::{Link, Target},
};
use crate::pod::Cgroup;

/// Follows every socket of the pod.
pub(super) const SOCK_OPS: &str = "sc_sock_ops";

/// The programs and where each is attached, in the order in which nothing can go astray: first the
/// one that follows sockets, then the one that steers connections, those that hide it, those
/// that redirect, and last the net, which lets nothing leave past the proxy where the mode is strict.
pub(super) const PROGRAMS: [(&str, Hook); 9] = [
    (SOCK_OPS, Hook::Cgroup),
    ("sc_sk_lookup", Hook::Netns),
    ("sc_peername4", Hook::Cgroup),
    ("sc_peername6", Hook::Cgroup),
    ("sc_sockname4", Hook::Cgroup),
    ("sc_sockname6", Hook::Cgroup),
    ("sc_connect4", Hook::Cgroup),
    ("sc_connect6", Hook::Cgroup),
    ("sc_egress", Hook::Cgroup),
];

/// How much the maps of a pod hold, where they are made anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Size {
    /// What the kernel side declares: for the only pod of a process.
    Declared,
    /// Less, where a table or a buffer is made for its largest content at once: for one of many pods.
    OfMany,
}

impl Size {
    /// The maps that hold less than is declared.
    ///
    /// `SC_FLOWS` holds handshakes under way. What is in `SC_LISTENING` is never taken out, so it must
    /// not become full: there is room for every port that the kernel picks by itself on two addresses,
    /// and for 9,000 others.
    const SMALLER: [(&str, u32); 6] = [
        ("AYA_LOGS", 16_384),
        ("SC_EXCLUDED_PORTS", 4_096),
        ("SC_EXCLUDED_UIDS", 256),
        ("SC_FLOWS", 8_192),
        ("SC_LISTENING", 65_536),
        ("SC_STATISTICS", 65_536),
    ];

    /// What loads maps of this size, and remembers what it was told for the last pod.
    ///
    /// Whoever makes one has it read what types the kernel has, which takes megabytes and is of no
    /// concern to programs that touch none of them: so there is one for all pods.
    fn loader(self) -> &'static Mutex<EbpfLoader<'static>> {
        type Loader = LazyLock<Mutex<EbpfLoader<'static>>>;
        static DECLARED: Loader = LazyLock::new(|| Mutex::new(Size::Declared.new_loader()));
        static OF_MANY: Loader = LazyLock::new(|| Mutex::new(Size::OfMany.new_loader()));
        match self {
            Self::Declared => &DECLARED,
            Self::OfMany => &OF_MANY,
        }
    }

    fn new_loader(self) -> EbpfLoader<'static> {
        // What the daemon would not log is not reported: the verifier removes it.
        static LEVEL: LazyLock<u8> = LazyLock::new(|| log::max_level() as u8);
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        loader.override_global(logger::LEVEL, &*LEVEL, true);
        for (map, entries) in self.smaller() {
            loader.map_max_entries(map, *entries);
        }
        loader
    }

    fn smaller(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Declared => &[],
            Self::OfMany => &Self::SMALLER,
        }
    }
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hook {
    /// The pod's cgroup.
    Cgroup,
    /// The pod's network namespace.
    Netns,
}

/// The pod, as programs are attached to it.
pub struct Place {
    /// The processes whose sockets are seen.
    cgroup: Cgroup,
    /// The network namespace in which connections are steered.
    netns: File,
}

impl Place {
    /// The processes of `cgroup`, in the network namespace of this thread.
    pub fn new(cgroup: &Cgroup) -> io::Result<Self> {
        Ok(Self {
            cgroup: cgroup.try_clone()?,
            netns: File::open("/proc/thread-self/ns/net")?,
        })
    }

    pub(super) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    fn target(&self, hook: Hook) -> io::Result<Target> {
        Ok(match hook {
            Hook::Cgroup => Target::Cgroup(self.cgroup.id()),
            Hook::Netns => Target::Netns(self.netns.metadata()?.ino()),
        })
    }

    fn describe(&self, hook: Hook) -> String {
        match hook {
            Hook::Cgroup => self.cgroup.to_string(),
            Hook::Netns => "the pod's network namespace".into(),
        }
    }
}

/// Is this link pinned, and attached to the pod as it is now?
///
/// A cgroup or a namespace may have gone since, and with a new container there is a new namespace.
pub(super) fn is_attached(
    pins: &Pins,
    place: &Place,
    name: &str,
    hook: Hook,
) -> Result<bool, Error> {
    Ok(attached(pins, place, name, hook)?.is_some())
}

/// The link, if it is pinned and attached to the pod; an error if that cannot be told.
fn attached(pins: &Pins, place: &Place, name: &str, hook: Hook) -> Result<Option<Link>, Error> {
    let path = pins.link(name);
    let find = || {
        let link = Link::open(&path)?;
        io::Result::Ok((link.target()? == place.target(hook)?).then_some(link))
    };
    match find() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map_err(|source| Error::bpffs("open", &path, source)),
    }
}

/// Loads everything on maps that nobody else has, attaches nothing, and lets go of it.
pub fn try_to_load() -> Result<(), Error> {
    let mut ebpf = Size::Declared
        .new_loader()
        .load(object()?)
        .map_err(refusal::of_object)?;
    load_programs(&mut ebpf)
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), Error> {
    for (name, program) in ebpf.programs_mut() {
        let accepted = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => Ok(()),
        };
        accepted.map_err(|source| refusal::of_program(known_name(name), source))?;
    }
    Ok(())
}

/// The programs, loaded: those of this binary, on the pinned maps.
pub(super) struct Programs(Ebpf);

impl Programs {
    /// Loads them, on the maps that are pinned already and on new ones, which are then pinned.
    /// Attaches nothing.
    pub(super) fn load(pins: &Pins, size: Size) -> Result<Self, Error> {
        // What is left of a load that panicked is told anew.
        let mut loader = size.loader().lock().unwrap_or_else(PoisonError::into_inner);
        for map in MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
        let mut ebpf = loader.load(object()?).map_err(refusal::of_object)?;
        // The verifier looks at programs of several pods at once.
        drop(loader);
        // The compiler's own maps (`.rodata`) are of one load only.
        let unknown = ebpf
            .maps()
            .map(|(name, _)| name)
            .find(|name| name.starts_with("SC_") && !MAPS.contains(name));
        assert_eq!(
            unknown, None,
            "the kernel side has a map that is not pinned"
        );
        load_programs(&mut ebpf)?;
        Ok(Self(ebpf))
    }

    /// Has the pinned link run this program; `false` if there is no such link on the pod.
    ///
    /// Nothing happens to connections, and no moment is without a program.
    pub(super) fn replace(
        &self,
        pins: &Pins,
        place: &Place,
        (name, hook): (&'static str, Hook),
    ) -> Result<bool, Error> {
        let Some(link) = attached(pins, place, name, hook)? else {
            return Ok(false);
        };
        let program = self.0.program(name).expect(KNOWN);
        let fd = program.fd().map_err(|source| Error::Program {
            program: name,
            source,
        })?;
        match link.replace(fd.as_fd()) {
            Ok(()) => Ok(true),
            // It has gone just now.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
            Err(source) => Err(Error::Replace {
                program: name,
                source,
            }),
        }
    }

    /// Attaches the program, and pins the link in the place of what may be pinned there.
    pub(super) fn attach(
        &mut self,
        pins: &Pins,
        place: &Place,
        (name, hook): (&'static str, Hook),
    ) -> Result<(), Error> {
        let program = self.0.program_mut(name).expect(KNOWN);
        let link = match hook {
            Hook::Cgroup => attach_to_cgroup(program, place.cgroup.as_fd()),
            Hook::Netns => attach_to_netns(program, place.netns.as_fd()),
        };
        let link = attached_link(link, name, || place.describe(hook)).map_err(|error| {
            let obstacle = beside::obstacle(&place.cgroup, pins);
            match obstacle.filter(|_| hook == Hook::Cgroup) {
                Some(obstacle) => Error::NoRoom {
                    program: name,
                    obstacle,
                },
                None => error,
            }
        })?;
        let path = pins.link(name);
        remove_file(&path).map_err(|source| Error::BpfFs {
            action: "remove",
            path: path.clone(),
            source,
        })?;
        // The file holds the link now; the descriptor is not needed.
        link.pin(&path)
            .map(drop)
            .map_err(|source| Error::Pin { path, source })
    }

    /// Follows the sockets of another cgroup, for as long as the link is kept.
    pub(super) fn follow(&mut self, cgroup: &Cgroup) -> Result<FdLink, Error> {
        let program = self.0.program_mut(SOCK_OPS).expect(KNOWN);
        let link = attach_to_cgroup(program, cgroup.as_fd());
        attached_link(link, SOCK_OPS, || cgroup.to_string())
    }

    /// The object, for whoever forwards the programs' messages.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.0
    }
}

/// Why a program is there to be found.
const KNOWN: &str = "the object has every program of the table";

/// The outer error is of attaching, the inner one of what kind of link that made.
type Attached = Result<Result<FdLink, LinkError>, ProgramError>;

fn attached_link(
    link: Attached,
    program: &'static str,
    target: impl Fn() -> String,
) -> Result<FdLink, Error> {
    let link = link.map_err(|source| Error::Attach {
        program,
        target: target(),
        source,
    })?;
    link.map_err(|source| Error::Link { program, source })
}

fn attach_to_cgroup(program: &mut Program, cgroup: BorrowedFd<'_>) -> Attached {
    // A link always leaves room for others; aya's other modes are for attaching without one.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSkb(program) => {
            let id = program.attach(cgroup, CgroupSkbAttachType::Egress, MODE)?;
            program.take_link(id).map(FdLink::try_from)
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id).map(FdLink::try_from)
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id).map(FdLink::try_from)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_to_netns(program: &mut Program, netns: BorrowedFd<'_>) -> Attached {
    match program {
        Program::SkLookup(program) => {
            let id = program.attach(netns)?;
            program.take_link(id).map(|link| Ok(link.into()))
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The static name of one of our programs, for errors.
fn known_name(name: &str) -> &'static str {
    PROGRAMS
        .into_iter()
        .map(|(known, _)| known)
        .find(|known| *known == name)
        .unwrap_or("of an unknown name")
}
