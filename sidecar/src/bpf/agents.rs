//! What agents of the node have pinned, as other agents find it.

use std::path::Path;

use sidecar_common::Owner;

use super::{
    Error, Pins,
    listening::Listening,
    ownership::{self, Ownership},
    removal,
    sys::{Link, Target},
};

/// Who has a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder {
    /// Nobody, or somebody who serves no more and has left nothing to keep.
    Nobody,
    /// A sidecar of its own, or `sidecar init` for one.
    Sidecar,
    /// An agent of the node, which serves it or did.
    Agent {
        /// Does one serve it now?
        is_served: bool,
    },
}

impl Holder {
    /// Who has the pod whose pins these are. Call it in the pod's network namespace.
    ///
    /// An error where that cannot be told: somebody may serve the pod.
    pub fn of(pins: &Pins) -> Result<Self, Error> {
        let owner = match Ownership::open(pins).and_then(|owner| owner.current()) {
            // Nothing is pinned, or half of it: a start decides what becomes of that.
            Err(error) if error.is_not_found() => return Ok(Self::Nobody),
            owner => owner?,
        };
        let is_served = Listening::is_any_open(&[owner.cookie])?;
        Ok(match owner.kept {
            Owner::KEPT_BY_AGENT => Self::Agent { is_served },
            Owner::KEPT_BY_INIT => Self::Sidecar,
            _ if is_served => Self::Sidecar,
            _ => Self::Nobody,
        })
    }
}

/// What agents have pinned on this BPF file system.
pub fn all(bpffs: &Path) -> Result<Vec<Pins>, Error> {
    let mut all = Pins::all(bpffs)?;
    all.retain(|pins| ownership::kept(pins) == Some(Owner::KEPT_BY_AGENT));
    Ok(all)
}

/// Has the pod gone for which this is pinned? Its cgroup has, to which links were attached.
pub fn is_of_the_past(pins: &Pins) -> bool {
    let links = pins.links().unwrap_or_default();
    let mut cgroups = links.iter().filter(|link| !link.ends_with("sc_sk_lookup"));
    cgroups.any(|link| {
        Link::open(link)
            .and_then(|link| link.target())
            .is_ok_and(|target| target == Target::Gone)
    })
}

/// Removes what is pinned for a pod, unless somebody changes it just now.
pub fn remove(pins: &Pins) -> Result<(), Error> {
    let _lock = pins.lock()?;
    removal::remove(&[pins.directory().to_owned()]).into_result()?;
    // Of all pods, where it was the last.
    let _ = pins.directory().parent().map(std::fs::remove_dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Cgroup;

    #[test]
    fn a_pod_has_nobody_where_nothing_is_pinned_and_not_where_that_cannot_be_told() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let cgroup = Cgroup::of_this_process().expect("this process is in one");
        let pins = Pins::of(bpffs.path(), &cgroup);
        assert_eq!(Holder::of(&pins).expect("nothing is there"), Holder::Nobody);
        let maps = pins.directory().join("maps");
        std::fs::create_dir_all(&maps).expect("a writable directory");
        // It is there, and no map can be opened by it.
        std::fs::write(maps.join("SC_OWNER"), "").expect("a writable directory");
        let error = Holder::of(&pins).expect_err("no map").to_string();
        assert!(error.contains("SC_OWNER"), "{error}");
    }
}
