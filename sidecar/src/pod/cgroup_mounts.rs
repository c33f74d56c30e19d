use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// A view on the tree of cgroup v2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct CgroupMount {
    /// Which cgroup is at its top, as this process's cgroup namespace names it: `/` for the namespace's own root, and one `..` for
    /// each step above that.
    root: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl CgroupMount {
    /// All of them, in the order in which they were mounted.
    pub fn all() -> Vec<Self> {
        parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Where it shows a cgroup that the namespace names like this; `None` if that cannot be told, or it is not below it.
    pub fn path_of(&self, cgroup: &Path) -> Option<PathBuf> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        let is_below = !below.components().any(|part| part == Component::ParentDir);
        // Joined with nothing, a path would end in a slash.
        is_below.then(|| self.at.components().chain(below.components()).collect())
    }
}

/// What proc(5) tells of mounts: the fourth field is the root, the fifth the place, and the type comes after a lone hyphen.
fn parse(mountinfo: &str) -> Vec<CgroupMount> {
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let is_version_2 = file_system.split(' ').next() == Some("cgroup2");
        is_version_2.then(|| CgroupMount {
            root: root.into(),
            at: at.into(),
        })
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, at: &str) -> CgroupMount {
        CgroupMount {
            root: root.into(),
            at: at.into(),
        }
    }

    #[test]
    fn mounts_of_version_2_are_found_in_both_layouts() {
        let pure = "24 1 0:22 / /proc rw - proc proc rw\n\
                    25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse(pure), [mount("/", "/sys/fs/cgroup")]);
        let container = "57 48 0:37 /../../.. /run/sidecar/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
                         59 48 0:38 /../../.. /run/sidecar/cgroup/unified ro master:1 shared:2 - cgroup2 cgroup2 rw\n\
                         80 68 0:38 / /sys/fs/cgroup ro - cgroup2 c rw\n";
        assert_eq!(
            parse(container),
            [
                mount("/../../..", "/run/sidecar/cgroup/unified"),
                mount("/", "/sys/fs/cgroup")
            ]
        );
        assert_eq!(
            parse("25 1 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
            []
        );
    }

    #[test]
    fn a_path_is_given_only_where_it_is_certain() {
        let path = |root, cgroup| mount(root, "/at").path_of(Path::new(cgroup));
        for (root, cgroup, at) in [
            ("/", "/", "/at"),
            ("/", "/a/b", "/at/a/b"),
            ("/a", "/a/b", "/at/b"),
            ("/..", "/../b", "/at/b"),
        ] {
            assert_eq!(path(root, cgroup), Some(at.into()), "{cgroup} below {root}");
        }
        for (root, cgroup) in [
            ("/..", "/"),
            ("/../..", "/../b"),
            ("/", "/../b"),
            ("/a", "/b"),
        ] {
            assert_eq!(path(root, cgroup), None, "{cgroup} below {root}");
        }
    }
}
