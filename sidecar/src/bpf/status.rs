//! What of ours is in the kernel right now, read from the pins.

use std::path::Path;

use aya::{
    maps::{Map, MapData, MapInfo, PerCpuArray},
    programs::links::{FdLink, PinnedLink},
};
use serde::Serialize;
use sidecar_common::Event;

use super::{Error, pins};

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

/// What one daemon has in the kernel for one pod.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    /// Id of the pod's cgroup.
    pub cgroup: u64,
    /// Process id of the daemon that attached it.
    pub pid: u32,
    /// Does that process still run? If not, the pod is closed until the next start or a clean-up.
    pub alive: bool,
    /// The links, and through them the programs.
    pub links: Vec<Link>,
    /// The maps.
    pub maps: Vec<MapStatus>,
    /// The counters that are not zero.
    pub events: Vec<Count>,
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
pub fn status(bpffs: &Path) -> Result<Vec<PodStatus>, Error> {
    pins::all(bpffs)?
        .into_iter()
        .map(|generation| {
            Ok(PodStatus {
                cgroup: generation.cgroup,
                pid: generation.pid,
                alive: Path::new("/proc").join(generation.pid.to_string()).exists(),
                links: generation
                    .links()?
                    .iter()
                    .map(|path| link(path))
                    .collect::<Result<_, _>>()?,
                maps: generation
                    .maps()?
                    .iter()
                    .map(|path| map(path))
                    .collect::<Result<_, _>>()?,
                events: events(&generation)?,
            })
        })
        .collect()
}

fn link(path: &Path) -> Result<Link, Error> {
    let read = PinnedLink::from_pin(path)
        .map(FdLink::from)
        .and_then(|link| link.info());
    let info = read.map_err(|source| Error::Link {
        program: "behind a pinned link",
        source,
    })?;
    Ok(Link {
        program: name(path),
        program_id: info.program_id(),
        link_id: info.id(),
    })
}

fn map(path: &Path) -> Result<MapStatus, Error> {
    let info = MapInfo::from_pin(path).map_err(|source| Error::Map {
        map: "pinned",
        source,
    })?;
    Ok(MapStatus {
        name: name(path),
        id: info.id(),
    })
}

fn events(generation: &pins::Generation) -> Result<Vec<Count>, Error> {
    let Some(path) = generation
        .maps()?
        .into_iter()
        .find(|path| name(path) == Events::MAP)
    else {
        return Ok(Vec::new());
    };
    let map = MapData::from_pin(path)
        .and_then(|data| PerCpuArray::try_from(Map::PerCpuArray(data)))
        .map_err(|source| Error::Map {
            map: Events::MAP,
            source,
        })?;
    Ok(Events::new(map)
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
