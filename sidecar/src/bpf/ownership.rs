use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError};
use sidecar_common::{ABI, Owner};
use socket2::SockRef;

use super::{Error, Pins, maps};
use crate::pod;

/// Name of the map.
const OWNER: &str = "SC_OWNER";
/// Name of the map.
pub(super) const LAYOUT: &str = "SC_ABI";
/// Each of the two maps has a single entry.
const ONLY: u32 = 0;

/// Who serves the pod: the one pinned fact by which daemons find out about each other.
pub struct Ownership {
    /// The map with one entry.
    map: Array<MapData, Owner>,
    /// Where it is pinned.
    path: PathBuf,
    /// The pin itself, wherever it is moved, which is merely looked at.
    pin: File,
    /// What we have written, once we have.
    ours: Option<u64>,
}

/// How we ceased to serve the pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Another sidecar serves it.
    Replaced,
    /// Nobody does: what was pinned has been removed.
    Removed,
}

impl Ownership {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Self::open_pin(&pins.map(OWNER)).map_err(|source| Error::Map { map: OWNER, source })
    }

    /// Another handle of the same.
    pub(super) fn another(&self, pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            ours: self.ours,
            ..Self::open(pins)?
        })
    }

    /// That of a state that stands beside ours, if it has one.
    pub(super) fn of_older(state: &Path) -> Option<Self> {
        Self::open_pin(&state.join("maps").join(OWNER)).ok()
    }

    fn open_pin(path: &Path) -> Result<Self, MapError> {
        let map = MapData::from_pin(path)
            .and_then(Map::from_map_data)
            .and_then(Array::try_from)?;
        Ok(Self {
            map,
            path: path.to_owned(),
            pin: OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(path)?,
            ours: None,
        })
    }

    /// Who serves now, whatever the version of what is pinned.
    pub(super) fn current(&self) -> Result<Owner, Error> {
        self.map
            .get(&ONLY, 0)
            .map_err(|source| Error::Map { map: OWNER, source })
    }

    /// Makes us the one who serves, by the first listener of ours.
    pub(super) fn take(&mut self, listener: &std::net::TcpListener) -> Result<(), Error> {
        let cookie = SockRef::from(listener).cookie().map_err(Error::Cookie)?;
        let owner = Owner {
            cookie,
            netns: pod::netns_number(),
            pid: std::process::id(),
            kept: self.current()?.kept,
        };
        self.write(owner)?;
        self.ours = Some(cookie);
        Ok(())
    }

    /// Notes that what is pinned stays when its owner ends, and for whom.
    pub(super) fn keep(&mut self, kept: u32) -> Result<(), Error> {
        let owner = Owner {
            netns: pod::netns_number(),
            kept,
            ..self.current()?
        };
        self.write(owner)
    }

    /// How we ceased to serve; `None` while we do.
    pub fn loss(&self) -> Result<Option<Loss>, Error> {
        // Set aside by a start that may yet fail, it is still a pin.
        if self.look()?.nlink() == 0 {
            let replaced = self.path.exists();
            return Ok(Some(if replaced {
                Loss::Replaced
            } else {
                Loss::Removed
            }));
        }
        let is_ours = self.ours == Some(self.current()?.cookie);
        Ok((!is_ours).then_some(Loss::Replaced))
    }

    /// Is what we serve by where a start would find it? If not, one that did not come to its end
    /// has set it aside.
    pub(super) fn is_in_place(&self) -> Result<bool, Error> {
        let inode = self.look()?.ino();
        Ok(fs::metadata(&self.path).is_ok_and(|found| found.ino() == inode))
    }

    fn look(&self) -> Result<Metadata, Error> {
        let looked = self.pin.metadata();
        looked.map_err(|source| Error::bpffs("look at", &self.path, source))
    }

    fn write(&mut self, owner: Owner) -> Result<(), Error> {
        self.map
            .set(ONLY, owner, 0)
            .map_err(|source| Error::Map { map: OWNER, source })
    }
}

/// For whom what is pinned for a pod is kept; `None` if nothing is, or it cannot be read.
pub(super) fn kept(pins: &Pins) -> Option<u32> {
    Some(Ownership::open(pins).ok()?.current().ok()?.kept)
}

/// The version of the layout of what is pinned; an error if none is written down.
pub(super) fn layout(pins: &Pins) -> Result<u32, Error> {
    let map: Array<MapData, u32> = maps::open(pins, LAYOUT)?;
    map.get(&ONLY, 0).map_err(|source| Error::Map {
        map: LAYOUT,
        source,
    })
}

/// The version of the layout of what is pinned; `None` if none is written down, an error if that
/// cannot be told.
pub(super) fn layout_if_any(pins: &Pins) -> Result<Option<u32>, Error> {
    match layout(pins) {
        Ok(layout) => Ok(Some(layout)),
        Err(Error::Map {
            source: MapError::SyscallError(error),
            ..
        }) if error.io_error.kind() != io::ErrorKind::NotFound => {
            Err(Error::bpffs("open", &pins.map(LAYOUT), error.io_error))
        }
        // There is no such map, or another kind of map.
        Err(_) => Ok(None),
    }
}

/// Writes down that what is pinned is of this version.
pub(super) fn set_layout(pins: &Pins) -> Result<(), Error> {
    let mut map: Array<MapData, u32> = maps::open(pins, LAYOUT)?;
    map.set(ONLY, ABI, 0).map_err(|source| Error::Map {
        map: LAYOUT,
        source,
    })
}

/// Why the pinned maps cannot be used without privileges.
pub(super) fn explain(error: Error, pins: &Pins) -> Error {
    let Error::Map { map, source } = error else {
        return error;
    };
    let path = pins.map(map);
    let source = maps::into_io(source);
    match source.raw_os_error() {
        Some(libc::ENOENT) => Error::NothingPinned(pins.directory().to_owned()),
        Some(libc::EACCES) => Error::NotHandedOver {
            path,
            uid: nix::unistd::geteuid().as_raw(),
        },
        // bpf(2) itself is refused: before 5.19 to anybody without privileges.
        Some(libc::EPERM) => Error::BpfRefused(path),
        _ => Error::Map {
            map,
            source: MapError::IoError(source),
        },
    }
}
