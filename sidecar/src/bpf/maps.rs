use std::io;

use aya::maps::{Map, MapData, MapError};

use super::{Error, Pins};

/// The maps, as the kernel side declares them. Whoever serves the pod finds them by their pins.
pub(super) const MAPS: [&str; 15] = [
    "SC_ABI",
    "SC_EVENTS",
    "SC_EXCLUDED_NETS",
    "SC_EXCLUDED_PORTS",
    "SC_EXCLUDED_UIDS",
    "SC_FAILURES",
    "SC_FLOWS",
    "SC_LISTENERS",
    "SC_LISTENING",
    "SC_MODES",
    "SC_OWNER",
    "SC_OWN_ADDRS",
    "SC_PROBES",
    "SC_SOCKETS",
    "SC_STATISTICS",
];

/// Opens a pinned map.
pub(super) fn open<T>(pins: &Pins, map: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(open_any(pins, map)?).map_err(|source| Error::Map { map, source })
}

/// Opens a pinned map of whichever kind.
pub(super) fn open_any(pins: &Pins, map: &'static str) -> Result<Map, Error> {
    MapData::from_pin(pins.map(map))
        .and_then(Map::from_map_data)
        .map_err(|source| Error::Map { map, source })
}

/// What the kernel said, where it was the kernel that failed.
pub(super) fn into_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}
