use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};

use super::Error;
use crate::bpf::probe::Release;

/// What is left of the capabilities.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capabilities {
    /// Nothing.
    None,
    /// `CAP_BPF`, as kernels before 5.19 demand of whoever uses a map.
    Bpf,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no capabilities",
            Self::Bpf => "no capability but CAP_BPF",
        })
    }
}

/// Empties every capability set of the calling thread, but for what this kernel demands.
pub(super) fn drop_all(kernel: Option<Release>) -> Result<Capabilities, Error> {
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted)?
        .intersection(&needed(kernel))
        .copied()
        .collect();
    caps::clear(None, CapSet::Ambient)?;
    // Taking from the bounding set is a privilege of its own. Without it the set bounds nothing:
    // no new privileges can be had anyway.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    // What is effective must be permitted, at every moment.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(if kept.is_empty() {
        Capabilities::None
    } else {
        Capabilities::Bpf
    })
}

/// What using a map takes, given its descriptor.
fn needed(kernel: Option<Release>) -> CapsHashSet {
    match kernel {
        Some(release) if release < Release::UNPRIVILEGED => [Capability::CAP_BPF].into(),
        _ => CapsHashSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_before_5_19_take_a_capability() {
        let needed = |text| needed(Release::parse(text));
        assert_eq!(needed("5.18.19"), [Capability::CAP_BPF].into());
        for release in ["5.19.0", "6.1.0-42-amd64", "6.18.44", "unknown"] {
            assert_eq!(needed(release), CapsHashSet::new(), "{release}");
        }
    }
}
