//! A container's manifest as podman's options.

use super::manifest::{
    Container, PodSecurityContext, Propagation, Resource, Resources, Seccomp, SecurityContext,
};

/// What a volume is on the machine.
#[derive(Debug)]
pub struct Source {
    /// A directory, or a socket.
    pub path: String,
    /// Whether nobody may write to it, whatever the mount says.
    pub read_only: bool,
}

/// The options that give a container exactly the privileges its manifest says, no matter where.
///
/// `image_user` is whom the image runs as when it is not told.
///
/// # Panics
///
/// When Kubernetes would not start it, or podman would start it otherwise.
#[track_caller]
pub fn security(container: &Container, pod: &PodSecurityContext, image_user: u32) -> Vec<String> {
    let name = &container.name;
    let SecurityContext {
        allow_privilege_escalation,
        privileged,
        capabilities,
        read_only_root_filesystem,
        run_as_user,
        run_as_group,
        run_as_non_root,
        seccomp_profile,
    } = &container.security_context;
    let user = run_as_user.or(pod.run_as_user);
    let group = run_as_group.or(pod.run_as_group);
    let effective = user.unwrap_or(image_user);
    assert!(
        effective != 0 || run_as_non_root.or(pod.run_as_non_root) != Some(true),
        "Kubernetes refuses {name}: it has runAsNonRoot and would run as root"
    );
    assert_ne!(*privileged, Some(true), "{name} wants everything");
    // Podman makes them ambient, and then the user has them after all; other runtimes do not.
    assert!(
        effective == 0 || capabilities.add.is_empty(),
        "{name} runs as user {effective}, who gets no capability by adding one"
    );
    let mut options = Vec::new();
    match (user, group) {
        (Some(user), Some(group)) => options.push(format!("--user={user}:{group}")),
        (Some(user), None) => options.push(format!("--user={user}")),
        (None, Some(group)) => options.push(format!("--user={image_user}:{group}")),
        (None, None) => {}
    }
    for capability in &capabilities.drop {
        options.push(format!("--cap-drop={capability}"));
    }
    for capability in &capabilities.add {
        options.push(format!("--cap-add={capability}"));
    }
    if *allow_privilege_escalation == Some(false) {
        options.push("--security-opt=no-new-privileges".to_owned());
    }
    if *read_only_root_filesystem == Some(true) {
        options.extend(["--read-only", "--read-only-tmpfs=false"].map(str::to_owned));
    }
    let seccomp = seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    match seccomp.map(|profile| profile.kind) {
        Some(Seccomp::RuntimeDefault) => {}
        // So it is where a cluster does not say otherwise.
        Some(Seccomp::Unconfined) | None => {
            options.push("--security-opt=seccomp=unconfined".to_owned());
        }
    }
    options
}

/// The options that mount a container's volumes, each found by its name.
#[track_caller]
pub fn mounts(container: &Container, volume: impl Fn(&str) -> Source) -> Vec<String> {
    let mounts = container.volume_mounts.iter();
    mounts
        .map(|mount| {
            let Source { path, read_only } = volume(&mount.name);
            let access = if read_only || mount.read_only {
                "ro"
            } else {
                "rw"
            };
            let propagation = match mount.mount_propagation.unwrap_or(Propagation::None) {
                Propagation::None => "rprivate",
                Propagation::HostToContainer => "rslave",
                Propagation::Bidirectional => "rshared",
            };
            let target = &mount.mount_path;
            format!("--volume={path}:{target}:{access},rbind,{propagation}")
        })
        .collect()
}

/// The options that limit what a container may use.
#[track_caller]
pub fn limits(Resources { limits, .. }: &Resources) -> Vec<String> {
    let limits = limits.iter();
    limits
        .map(|(resource, amount)| match resource {
            Resource::Cpu => format!("--cpus={}", cores(amount)),
            Resource::Memory => format!("--memory={}", bytes(amount)),
        })
        .collect()
}

/// `0.1` of `100m`.
#[track_caller]
fn cores(amount: &str) -> f64 {
    let (number, unit) = amount
        .strip_suffix('m')
        .map_or((amount, 1.0), |number| (number, 1000.0));
    let number: f64 = number
        .parse()
        .unwrap_or_else(|_| panic!("no amount of cores: {amount}"));
    number / unit
}

/// `67108864` of `64Mi`.
#[track_caller]
fn bytes(amount: &str) -> u64 {
    let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(unit, size)| Some((amount.strip_suffix(unit)?, *size)))
        .unwrap_or((amount, 1));
    let number: u64 = number
        .parse()
        .unwrap_or_else(|_| panic!("no amount of memory: {amount}"));
    number * unit
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    fn container(context: &str) -> Container {
        let text = format!("{{name: it, image: it, securityContext: {{{context}}}}}");
        serde_saphyr::from_str(&text).expect("a container")
    }

    fn options(context: &str) -> Vec<String> {
        security(&container(context), &PodSecurityContext::default(), 4195)
    }

    #[test]
    fn each_privilege_is_what_the_manifest_says() {
        let context = "runAsUser: 0, runAsGroup: 4195, allowPrivilegeEscalation: false, \
             capabilities: {drop: [ALL], add: [BPF, NET_ADMIN, PERFMON]}, readOnlyRootFilesystem: true, \
             seccompProfile: {type: RuntimeDefault}";
        let expected = [
            "--user=0:4195",
            "--cap-drop=ALL",
            "--cap-add=BPF",
            "--cap-add=NET_ADMIN",
            "--cap-add=PERFMON",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--read-only-tmpfs=false",
        ];
        assert_eq!(options(context), expected);
    }

    #[test]
    fn what_is_left_out_is_what_kubernetes_makes_of_it() {
        assert_eq!(options(""), ["--security-opt=seccomp=unconfined"]);
    }

    #[test]
    fn the_pod_speaks_for_containers_that_do_not() {
        let pod: PodSecurityContext =
            serde_saphyr::from_str("{runAsUser: 1, seccompProfile: {type: RuntimeDefault}}")
                .expect("a context");
        assert_eq!(security(&container(""), &pod, 0), ["--user=1"]);
        let own = "runAsUser: 2, seccompProfile: {type: Unconfined}";
        let expected = ["--user=2", "--security-opt=seccomp=unconfined"];
        assert_eq!(security(&container(own), &pod, 0), expected);
    }

    #[test]
    fn what_kubernetes_would_not_start_does_not_start() {
        for context in [
            "runAsNonRoot: true, runAsUser: 0",
            "runAsUser: 4195, capabilities: {add: [BPF]}",
            "privileged: true",
        ] {
            let container = container(context);
            let started =
                panic::catch_unwind(|| security(&container, &PodSecurityContext::default(), 4195));
            started.expect_err(context);
        }
    }

    #[test]
    fn fields_that_are_not_known_are_refused() {
        for context in ["runAsUsr: 0", "seccompProfile: {type: Localhost}"] {
            let text = format!("{{name: it, image: it, securityContext: {{{context}}}}}");
            serde_saphyr::from_str::<Container>(&text).expect_err(context);
        }
    }

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        assert_eq!(bytes("64Mi"), 67_108_864);
        assert_eq!(bytes("1000"), 1000);
        assert!((cores("100m") - 0.1).abs() < 1e-9);
        assert!((cores("2") - 2.0).abs() < 1e-9);
    }
}
