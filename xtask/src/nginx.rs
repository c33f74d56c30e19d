//! nginx, the server that everyone has.

use std::net::SocketAddr;

use sidecar_tests::{Pod, Process};

/// Where Debian's packages put it.
pub const PROGRAM: &str = "/usr/sbin/nginx";

/// What every page says, and what curl asks for.
pub const WORDS: &str = "violet-rhinoceros";

const PORT: u16 = 8080;
const HTTP2_PORT: u16 = 8081;

/// Where it listens in `pod`.
pub fn address(pod: &Pod) -> SocketAddr {
    (pod.v4(), PORT).into()
}

/// Where it takes HTTP/2 without TLS in `pod`.
pub fn http2_address(pod: &Pod) -> SocketAddr {
    (pod.v4(), HTTP2_PORT).into()
}

/// A page without content, whose requests are not logged, of what answers at `address`.
pub fn empty_page(address: SocketAddr) -> String {
    format!("http://{address}/empty")
}

/// Starts it in `pod`. For each request it writes down the client, itself and the page.
pub fn start(pod: &Pod) -> Process {
    let configuration = format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    log_format seen '$remote_addr:$remote_port $server_addr:$server_port $request_uri';
    keepalive_requests 1000000;
    keepalive_timeout 1h;
    server {{
        listen {PORT};
        listen {HTTP2_PORT} http2;
        location / {{ access_log /dev/stdout seen; return 200 '{WORDS}\\n'; }}
        location /empty {{ access_log off; return 204; }}
    }}
}}
"
    );
    let directory = pod.sandbox().directory();
    let path = pod.sandbox().file("nginx.conf", configuration);
    pod.program(PROGRAM)
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(path)
        .listen(PORT)
}
