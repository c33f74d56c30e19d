//! Pods to try the sidecar in, and the means to see what it did.
//!
//! A pod is what Kubernetes calls a pod, minus Kubernetes: a network namespace and a cgroup with
//! one child per container. [`Pods`] makes two of them, joined by a bridge in a namespace of its
//! own, and puts a sidecar into the ones that ask for it. Real programs run in them through
//! [`Program`]; [`Capture`] tells what crossed the wire; [`Sidecar`] tells what was logged and
//! counted.
//!
//! ```no_run
//! use sidecar_tests::{Pods, Program};
//!
//! let pods = Pods::meshed();
//! let _server = pods.server.program("python3").args(["-m", "http.server", "8080"]).listen(8080);
//! let wire = pods.client.capture();
//! pods.client.program("curl").arg(format!("http://{}:8080/", pods.server.v4())).succeed();
//! assert!(wire.finish().only_stream().is_tls());
//! ```
//!
//! Everything is a guard: dropped, also by a panic, it kills the processes inside, waits until they
//! are gone and removes what it made. What a killed run left behind, the next run sweeps up.
//! Functions panic instead of returning errors: they are for tests, and a test that cannot set
//! itself up has failed.

pub mod access_log;
pub mod app;
pub mod capture;
pub mod cgroup;
pub mod check;
pub mod collector;
pub mod container;
pub mod dashboard;
pub mod fates;
pub mod flow;
pub mod foreign;
pub mod forge;
pub mod h2load;
pub mod http;
pub mod kernel;
pub mod kube_api;
pub mod kube_apiserver;
pub mod load;
pub mod manifests;
pub mod metrics;
pub mod namespace;
pub mod network;
pub mod no_ipv6;
pub mod node;
pub mod pod;
pub mod pods;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod rules;
pub mod sandbox;
pub mod servers;
pub mod sidecar;
pub mod stream;
pub mod svid;
pub mod sysctl;
pub mod tls;
pub mod tls_peer;
pub mod tls_site;
pub mod tunnel;
pub mod wait;
pub mod wire;

pub use access_log::Connection;
pub use app::{App, Behaviour};
pub use capture::Capture;
pub use check::Check;
pub use collector::Collector;
pub use container::ContainerPod;
pub use fates::EveryMode;
pub use flow::Flow;
pub use foreign::Foreign;
pub use kube_api::KubeApi;
pub use load::Load;
pub use metrics::Metrics;
pub use network::Network;
pub use pod::Pod;
pub use pods::Pods;
pub use process::{Output, Process};
pub use program::Program;
pub use sandbox::Sandbox;
pub use sidecar::Sidecar;
pub use stream::Stream;
pub use tunnel::Tunnel;
pub use wire::Wire;

/// What apps tell each other where nobody else should hear it. It occurs nowhere by chance.
pub const SECRET: &str = "violet rhinoceros";

/// Every program the pods run, and every library of their scripts, by path, with the Debian package that brings it.
///
/// `cargo xtask setup` installs the packages whose program is missing.
pub const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/h2load", "nghttp2-client"),
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/bin/mariadb", "mariadb-client"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/podman", "podman"),
    ("/usr/bin/promtool", "prometheus"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/psql", "postgresql-client"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/redis-cli", "redis-tools"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/scp", "openssh-client"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/socat", "socat"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql"),
    ("/usr/lib/python3/dist-packages/grpc", "python3-grpcio"),
    ("/usr/sbin/exim4", "exim4-daemon-light"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/iptables-save", "iptables"),
    ("/usr/sbin/mariadbd", "mariadb-server"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/sbin/sshd", "openssh-server"),
];
