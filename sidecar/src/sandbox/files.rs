use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope, make_bitflags,
};

use super::{Error, Sandbox};

/// The newest rights that the rules below have been tried with (Linux 6.15). Kernels that know
/// fewer enforce those that they know.
const TRIED: ABI = ABI::V7;

/// What is read however the sidecar is set up: the file that holds a descriptor to spare, how the
/// C library may give back memory, and the number of processors, by which counters of the kernel
/// side are added up.
const ALWAYS: [&str; 3] = [
    "/dev/null",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu/possible",
];

/// What Landlock enforces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Landlock {
    /// Rules of this version of the kernel's interface.
    Enforced {
        /// The version.
        abi: ABI,
    },
    /// The kernel has none, or has not enabled it.
    Missing,
}

impl From<LandlockStatus> for Landlock {
    fn from(status: LandlockStatus) -> Self {
        match status {
            LandlockStatus::Available { effective_abi, .. } => {
                Self::Enforced { abi: effective_abi }
            }
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Self::Missing,
        }
    }
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Enforced { abi } = *self else {
            return f.write_str("no Landlock");
        };
        write!(f, "Landlock {} for files", abi as i32)?;
        if abi >= ABI::V4 {
            f.write_str(", ports")?;
        }
        if abi >= ABI::V6 {
            f.write_str(", signals")?;
        }
        Ok(())
    }
}

/// Refuses the calling thread all files but those that the proxy goes on to need.
pub(super) fn restrict(sandbox: &Sandbox) -> Result<Landlock, Error> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    let rules = allow_files(rules, sandbox)?
        // Dials and the listeners of a successor take what the kernel chooses.
        .add_rule(NetPort::new(0, AccessNet::BindTcp))?
        .add_rule(NetPort::new(sandbox.admin_port, AccessNet::BindTcp))?;
    Ok(rules.restrict_self()?.landlock.into())
}

fn allow_files(mut rules: RulesetCreated, sandbox: &Sandbox) -> Result<RulesetCreated, Error> {
    let replace = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
    });
    let unpin = make_bitflags!(AccessFs::{ReadDir | RemoveFile | RemoveDir});
    for directory in directories(&sandbox.files) {
        rules = allow(rules, &directory, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    for directory in directories(sandbox.appended.as_slice()) {
        rules = allow(rules, &directory, AccessFs::WriteFile | AccessFs::MakeReg)?;
    }
    for directory in &sandbox.directories {
        rules = allow(rules, directory, replace)?;
    }
    rules = allow(rules, &sandbox.cgroup, AccessFs::ReadDir.into())?;
    if let Some(pins) = &sandbox.pins {
        rules = allow(rules, pins, unpin)?;
        // Their directory, and that of all pods, which goes with the last.
        for above in pins.ancestors().skip(1).take(2) {
            rules = allow(rules, above, AccessFs::RemoveDir.into())?;
        }
    }
    for file in ALWAYS {
        rules = allow(rules, Path::new(file), AccessFs::ReadFile.into())?;
    }
    Ok(rules)
}

/// Allows `access` to what is below `path`. What does not exist stays out of reach.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Error> {
    match PathFd::new(path) {
        Ok(file) => Ok(rules.add_rule(PathBeneath::new(file, access))?),
        Err(error) => {
            tracing::warn!(
                "the proxy will have no access to {}: {error}",
                path.display()
            );
            Ok(rules)
        }
    }
}

/// Where these files are, and where the links among them lead now.
fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for file in files {
        let behind_links = fs::canonicalize(file).ok();
        for file in [Some(file), behind_links.as_ref()].into_iter().flatten() {
            directories.insert(match file.parent() {
                Some(parent) if parent != Path::new("") => parent.to_owned(),
                _ => PathBuf::from("."),
            });
        }
    }
    directories
}
