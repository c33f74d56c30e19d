//! How cgroups are named that hold pods.
//!
//! | driver | cgroup of a pod, below wherever the kubelet's root is |
//! |---|---|
//! | cgroupfs | `kubepods[/burstable|/besteffort]/pod<uid>` |
//! | systemd | `kubepods.slice/[kubepods-burstable.slice/]kubepods-[burstable-]pod<uid>.slice`, with `_` for each `-` of the uid |
//! | Podman, cgroupfs | `libpod_parent/<id>` |
//! | Podman, systemd | `machine.slice/machine-libpod_pod_<id>.slice` |
//!
//! Slices of systemd repeat the names above them, so a kubelet with a root of its own, as in kind, puts that in front:
//! `kubelet-kubepods-pod<uid>.slice`. Containers are directories below that of their pod, whatever their runtime calls them.
//! Sources: `pkg/kubelet/cm/{cgroup_manager_linux,pod_container_manager_linux,qos_container_manager_linux}.go`
//! of Kubernetes, `libpod/runtime_pod_linux.go` of Podman.

use std::{fmt, path::Path};

/// Classes of service with cgroups of their own; pods of the third, guaranteed, are beside them.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// What the kubelet keeps all pods in.
const ALL_PODS: &str = "kubepods";

/// What Podman keeps pods in where it has no systemd.
const ALL_OF_PODMAN: &str = "libpod_parent";

/// Which pod a cgroup holds.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PodName {
    /// One of Kubernetes', by its uid as the API has it. That of a static pod is the hash of its manifest
    /// (`kubernetes.io/config.hash`), not the uid of what stands for it in the API.
    Kubernetes(String),
    /// One of Podman's, by its id.
    Podman(String),
}

impl PodName {
    /// The pod whose cgroup this is; `None` for what is above, below or beside pods.
    pub fn of(cgroup: &Path) -> Option<Self> {
        let name = name(cgroup)?;
        let parent = cgroup.parent().and_then(self::name).unwrap_or_default();
        if let Some(uid) = name.strip_prefix("pod") {
            return (is_uid(uid) && holds_all_of_a_class(cgroup.parent()?))
                .then(|| Self::Kubernetes(uid.into()));
        }
        if let Some(slice) = name.strip_suffix(".slice") {
            if let Some((class, uid)) = slice.rsplit_once("-pod") {
                let uid = uid.replace('_', "-");
                return (is_uid(&uid) && is_class(class)).then_some(Self::Kubernetes(uid));
            }
            let (_, id) = slice.rsplit_once("-libpod_pod_")?;
            return is_id(id).then(|| Self::Podman(id.into()));
        }
        (parent == ALL_OF_PODMAN && is_id(name)).then(|| Self::Podman(name.into()))
    }

    /// The uid or id, of letters, digits and hyphens: it can name a file on any file system.
    pub fn id(&self) -> &str {
        let (Self::Kubernetes(id) | Self::Podman(id)) = self;
        id
    }

    /// The nearest cgroup that is a pod's, of this one and those above it.
    pub fn around(cgroup: &Path) -> Option<(&Path, Self)> {
        cgroup
            .ancestors()
            .find_map(|above| Some((above, Self::of(above)?)))
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes(uid) => write!(f, "pod {uid}"),
            Self::Podman(id) => write!(f, "Podman's pod {id}"),
        }
    }
}

/// Is it a cgroup that many pods share: of all, or of a class of service?
pub fn is_shared(cgroup: &Path) -> bool {
    let Some(name) = name(cgroup) else {
        return false;
    };
    ["machine.slice", ALL_OF_PODMAN].contains(&name) || holds_all_of_a_class(cgroup)
}

/// `kubepods`, or a class in it, as either driver names them.
fn holds_all_of_a_class(cgroup: &Path) -> bool {
    let Some(name) = name(cgroup) else {
        return false;
    };
    if let Some(slice) = name.strip_suffix(".slice") {
        return is_class(slice);
    }
    let parent = cgroup.parent().and_then(self::name);
    name == ALL_PODS || (CLASSES.contains(&name) && parent == Some(ALL_PODS))
}

/// Is it the name of a slice that holds pods: `[root-]kubepods[-class]`?
fn is_class(slice: &str) -> bool {
    let all = CLASSES
        .iter()
        .find_map(|class| slice.strip_suffix(class)?.strip_suffix('-'))
        .unwrap_or(slice);
    all.rsplit('-').next() == Some(ALL_PODS)
}

/// Hexadecimal digits and hyphens: a UUID, or the hash of a static pod's manifest.
fn is_uid(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name(cgroup: &Path) -> Option<&str> {
    cgroup.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f7a6b1c-3d5e-4a8b-9c2d-1e4f5a6b7c8d";
    const UID_OF_SYSTEMD: &str = "0f7a6b1c_3d5e_4a8b_9c2d_1e4f5a6b7c8d";
    const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";
    const ID: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A path, and which of its parts is the pod's.
    fn pod_of_kubernetes(path: &str, uid: &str) {
        check(path, &PodName::Kubernetes(uid.into()));
    }

    /// The part in question ends at `!`.
    fn check(path: &str, pod: &PodName) {
        let (own, below) = path.split_once('!').expect("marked");
        let path = format!("{own}{below}");
        assert_eq!(
            PodName::around(Path::new(&path)),
            Some((Path::new(own), pod.clone())),
            "{path}"
        );
        assert_eq!(PodName::of(Path::new(own)).as_ref(), Some(pod));
        for below in Path::new(&path).ancestors() {
            let is_pod = below == Path::new(own);
            assert_eq!(PodName::of(below).is_some(), is_pod, "{}", below.display());
            assert!(!is_pod || !is_shared(below));
        }
        // Containers and pods may have directories of their own; what is directly above is shared.
        assert!(is_shared(Path::new(own).parent().expect("above")), "{path}");
    }

    #[test]
    fn a_pod_is_found_with_either_driver_in_every_class() {
        for class in ["", "burstable/", "besteffort/"] {
            for root in [
                "",
                "kubelet/",
                "docker/4f2a/kubelet/",
                "system.slice/k3s.service/",
            ] {
                pod_of_kubernetes(&format!("/{root}kubepods/{class}pod{UID}!/{ID}"), UID);
                pod_of_kubernetes(
                    &format!("/{root}kubepods/{class}pod{HASH}!/crio-{ID}"),
                    HASH,
                );
            }
        }
        for class in ["", "burstable", "besteffort"] {
            for root in ["", "kubelet-", "a-b-"] {
                let all = format!("{root}kubepods");
                let (dash, slice) = match class {
                    "" => ("", String::new()),
                    class => ("-", format!("{all}-{class}.slice/")),
                };
                for container in ["cri-containerd", "crio", "docker"] {
                    let pod = format!(
                        "/{all}.slice/{slice}{all}{dash}{class}-pod{UID_OF_SYSTEMD}.slice!/{container}-{ID}.scope"
                    );
                    pod_of_kubernetes(&pod, UID);
                }
            }
        }
    }

    #[test]
    fn a_pod_of_podmans_is_found() {
        let pod = PodName::Podman(ID.into());
        check(&format!("/libpod_parent/{ID}!/libpod-{ID}"), &pod);
        check(
            &format!("/machine.slice/machine-libpod_pod_{ID}.slice!/libpod-{ID}.scope/container"),
            &pod,
        );
    }

    #[test]
    fn a_pod_in_a_pod_is_its_own() {
        pod_of_kubernetes(
            &format!("/kubepods/pod{HASH}/{ID}/kubelet/kubepods/burstable/pod{UID}!/{ID}")
                .replace(&format!("pod{HASH}"), "node"),
            UID,
        );
        let nested = format!("/kubepods/pod{HASH}/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID}");
        let (_, pod) = PodName::around(Path::new(&nested)).expect("a pod");
        assert_eq!(pod, PodName::Kubernetes(UID.into()));
    }

    #[test]
    fn what_is_no_pods_cgroup_is_none() {
        for path in [
            "/",
            "",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods.slice",
            "/kubepods.slice/kubepods-besteffort.slice",
            "/kubelet.slice/kubelet-kubepods.slice",
            "/kubepods/podinfo",
            "/kubepods/pod",
            "/system.slice/podman.service",
            "/system.slice/pod-1234.slice",
            &format!("/user.slice/pod{UID}"),
            &format!("/user.slice/burstable/pod{UID}"),
            &format!("/machine.slice/libpod-{ID}.scope"),
            &format!("/libpod_parent/libpod-{ID}"),
            &format!("/docker/{ID}"),
            &format!("/system.slice/cri-containerd-{ID}.scope"),
            "/libpod_parent/conmon",
        ] {
            assert_eq!(PodName::around(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn what_many_pods_share_is_told() {
        for path in [
            "/kubepods",
            "/kubepods/burstable",
            "/kubelet/kubepods/besteffort",
            "/kubepods.slice",
            "/kubepods.slice/kubepods-besteffort.slice",
            "/kubelet.slice/kubelet-kubepods.slice",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice",
            "/machine.slice",
            "/libpod_parent",
        ] {
            assert!(is_shared(Path::new(path)), "{path}");
        }
        for path in [
            "/",
            "/burstable",
            "/system.slice/sidecar.service",
            "/mykubepods.slice",
        ] {
            assert!(!is_shared(Path::new(path)), "{path}");
        }
    }
}
