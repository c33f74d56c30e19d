//! The pods of the demo and what runs in them.

use std::net::SocketAddr;

use sidecar_tests::{Pod, Pods, Process};

use crate::wrk::{self, Load};

/// Where nginx listens.
pub const PORT: u16 = 8080;

/// What curl asks for, and nginx answers with.
pub const WORDS: &str = "violet-rhinoceros";

/// Two pods with sidecars, one without, and nginx in two of them.
///
/// Dropped in this order: programs before the pods they run in.
pub struct Stage {
    /// nginx behind a sidecar.
    pub server: Process,
    /// nginx in the pod without.
    _plain_server: Process,
    /// The pod without a sidecar.
    pub plain: Pod,
    /// The pods with sidecars.
    pub pods: Pods,
}

/// Two pods without sidecars, and what a load between them brings.
pub fn plain() -> (Pods, Load) {
    let pods = Pods::plain();
    let server = nginx(&pods.server);
    let direct = load(&pods);
    drop(server);
    (pods, direct)
}

/// Gives both pods their sidecars.
pub fn mesh(pods: &mut Pods) {
    let dev_ca = pods.dev_ca();
    for pod in [&mut pods.client, &mut pods.server] {
        pod.mesh(&dev_ca, &[]);
    }
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_until_ready();
    }
}

/// One request after the other over one connection, from the client's pod to the server's.
pub fn load(pods: &Pods) -> Load {
    let target = format!("http://{}/latency", address(&pods.server));
    wrk::run(pods.client.program(wrk::PROGRAM), 1, 1, &[&target])
}

/// Where nginx listens in `pod`.
pub fn address(pod: &Pod) -> SocketAddr {
    (pod.v4(), PORT).into()
}

impl Stage {
    /// Puts the servers into their pods, after the sidecars.
    pub fn new(pods: Pods) -> Self {
        let plain = pods.join("plain");
        Self {
            server: nginx(&pods.server),
            _plain_server: nginx(&plain),
            plain,
            pods,
        }
    }
}

/// Starts nginx in `pod`. It writes down whom it sees.
fn nginx(pod: &Pod) -> Process {
    let configuration = format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    log_format seen '$remote_addr:$remote_port $server_addr:$server_port $request_uri';
    keepalive_requests 1000000;
    server {{
        listen {PORT};
        location / {{ access_log /dev/stdout seen; return 200 '{WORDS}\\n'; }}
        location /latency {{ access_log off; return 204; }}
    }}
}}
"
    );
    let directory = pod.sandbox().directory();
    let path = pod.sandbox().file("nginx.conf", configuration);
    pod.program("/usr/sbin/nginx")
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(path)
        .listen(PORT)
}
