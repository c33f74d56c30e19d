//! What of ours is in the kernel right now, read from the pins.

use std::path::{Path, PathBuf};

use aya::{
    maps::{MapData, MapInfo, PerCpuArray},
    programs::links::{FdLink, PinnedLink},
};
use serde::Serialize;
use sidecar_common::Event;

use super::{
    Error, Pins, maps,
    ownership::{self, Ownership},
};
/// How often the kernel side decided what, summed over all CPUs.
pub struct Events {
    /// One counter for each event and CPU.
    map: PerCpuArray<MapData, u64>,
}

impl Events {
    /// Name of the map.
    pub(super) const MAP: &'static str = "SC_EVENTS";

    pub(super) fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self { map }
    }

    /// Each event with its count.
    pub fn counts(&self) -> Result<Vec<(Event, u64)>, Error> {
        Event::ALL
            .iter()
            .map(|event| {
                let counts = self
                    .map
                    .get(&(*event as u32), 0)
                    .map_err(|source| Error::Map {
                        map: Self::MAP,
                        source,
                    })?;
                Ok((*event, counts.iter().sum()))
            })
            .collect()
    }
}

/// What is pinned for one pod.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    /// Id of the pod's cgroup; 0 if that has gone.
    pub cgroup: u64,
    /// Uid of Kubernetes' pod, or id of Podman's; none for a cgroup that is not named by one.
    pub pod: Option<String>,
    /// Version of the layout of what is pinned; none for what earlier versions have pinned, or a
    /// start that was killed.
    pub abi: Option<u32>,
    /// Process id of the sidecar that served last, as it saw itself: a container has ids of its own; none if none has yet.
    pub pid: Option<u32>,
    /// Does a sidecar serve the pod? If not, the pod is closed until the next start or a clean-up.
    pub alive: bool,
    /// Does all this stay when that process ends, because `sidecar init` has made it?
    pub kept: bool,
    /// The links, and through them the programs.
    pub links: Vec<Link>,
    /// The maps.
    pub maps: Vec<MapStatus>,
    /// The counters that are not zero.
    pub events: Vec<Count>,
    /// What stands beside or instead of links and maps: that of earlier versions, or unreadable.
    pub other: Vec<PathBuf>,
}

/// A program attached by a pinned link.
#[derive(Debug, Serialize)]
pub struct Link {
    /// Name of the program.
    pub program: String,
    /// Id of the program, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Id of the link, as `bpftool link` shows it.
    pub link_id: u32,
}

/// A pinned map.
#[derive(Debug, Serialize)]
pub struct MapStatus {
    /// Name of the map.
    pub name: String,
    /// Id of the map, as `bpftool map` shows it.
    pub id: u32,
}

/// One counter.
#[derive(Debug, Serialize)]
pub struct Count {
    /// Name of the event.
    pub event: &'static str,
    /// How often it happened.
    pub count: u64,
}

/// Everything of ours that is in the kernel.
///
/// What cannot be read is named and keeps nothing else from being shown.
pub fn status(bpffs: &Path) -> Result<Vec<PodStatus>, Error> {
    Pins::all(bpffs)?.iter().map(pod_status).collect()
}

/// Process id of the sidecar that served a pod last; none if none has, or what is pinned is of
/// another version or may not be read.
pub fn last_served(pins: &Pins) -> Option<u32> {
    let owner = Ownership::open(pins).ok()?.current().ok()?;
    (owner.pid != 0).then_some(owner.pid)
}

fn pod_status(pins: &Pins) -> Result<PodStatus, Error> {
    let mut other = pins.older()?;
    let mut readable = |path: PathBuf, read: bool| {
        if !read {
            other.push(path);
        }
    };
    let mut links = Vec::new();
    for path in pins.links()? {
        let found = link(&path);
        readable(path, found.is_some());
        links.extend(found);
    }
    let mut maps = Vec::new();
    for path in pins.maps()? {
        let found = map(&path);
        readable(path, found.is_some());
        maps.extend(found);
    }
    let owner = Ownership::open(pins).and_then(|ownership| ownership.current());
    let owner = owner.unwrap_or_default();
    Ok(PodStatus {
        cgroup: pins.cgroup(),
        pod: Some(pins.name())
            .filter(|name| name.parse::<u64>().is_err())
            .map(ToOwned::to_owned),
        abi: ownership::layout(pins).ok(),
        pid: (owner.pid != 0).then_some(owner.pid),
        alive: pins.are_served().unwrap_or(false),
        kept: owner.kept != 0,
        links,
        maps,
        events: events(pins).unwrap_or_default(),
        other,
    })
}

fn link(path: &Path) -> Option<Link> {
    let info = PinnedLink::from_pin(path)
        .map(FdLink::from)
        .and_then(|link| link.info())
        .ok()?;
    Some(Link {
        program: name(path),
        program_id: info.program_id(),
        link_id: info.id(),
    })
}

fn map(path: &Path) -> Option<MapStatus> {
    let info = MapInfo::from_pin(path).ok()?;
    Some(MapStatus {
        name: name(path),
        id: info.id(),
    })
}

fn events(pins: &Pins) -> Result<Vec<Count>, Error> {
    let counters: PerCpuArray<_, _> = maps::open(pins, Events::MAP)?;
    Ok(Events::new(counters)
        .counts()?
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(event, count)| Count {
            event: event.name(),
            count,
        })
        .collect())
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
