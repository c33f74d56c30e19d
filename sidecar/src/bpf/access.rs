//! Handing the maps to the user that is to serve the pod.

use std::{
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use super::{Error, Pins, pins};

/// Who may use the maps, beside whoever has pinned them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// The user that becomes their owner.
    pub uid: Option<u32>,
    /// The group that may use them as well.
    pub gid: Option<u32>,
}

impl Access {
    /// Hands over the maps, and the rights to change who serves and to read what is told; the links stay with whoever has
    /// pinned them.
    pub(super) fn grant(self, pins: &Pins) -> Result<(), Error> {
        /// For the owner, and for the group where one is named.
        const MAP: [u32; 2] = [0o600, 0o660];
        /// Everybody has to pass through; only who may lock it has to list it.
        const LOCK: [u32; 2] = [0o711, 0o751];
        if self.uid.is_none() && self.gid.is_none() {
            return Ok(());
        }
        let mode = |modes: [u32; 2]| modes[usize::from(self.gid.is_some())];
        for map in pins.maps()? {
            self.give(&map, mode(MAP))?;
        }
        for directory in [pins.lock_directory(), pins.reader_directory()] {
            self.give(&directory, mode(LOCK))?;
        }
        let Some(bpffs) = pins.directory().parent().and_then(Path::parent) else {
            return Ok(());
        };
        pins::open(bpffs).map_err(|source| Error::HandOver {
            path: bpffs.to_owned(),
            access: self,
            source,
        })
    }

    fn give(self, path: &Path, mode: u32) -> Result<(), Error> {
        let give = || {
            let now = fs::metadata(path)?;
            // Without being asked for more than is missing, the kernel asks for no capability.
            let uid = self.uid.filter(|uid| *uid != now.uid());
            let gid = self.gid.filter(|gid| *gid != now.gid());
            // While it is still ours.
            if now.mode() & 0o777 != mode {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            if uid.is_some() || gid.is_some() {
                chown(path, uid, gid)?;
            }
            io::Result::Ok(())
        };
        give().map_err(|source| Error::HandOver {
            path: path.to_owned(),
            access: self,
            source,
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.gid) {
            (Some(uid), Some(gid)) => write!(f, "user {uid} and group {gid}"),
            (Some(uid), None) => write!(f, "user {uid}"),
            (None, Some(gid)) => write!(f, "group {gid}"),
            (None, None) => f.write_str("nobody"),
        }
    }
}
