//! The daemon in containers, with the privileges that a cluster would give it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use sidecar_tests::{
    Connection, ContainerPod, SECRET,
    access_log::{self, Line},
    container::Node,
    forge::Holder,
    sidecar, wait,
};

/// A pod as it would be handed to a cluster, with the sidecar that `sidecar inject` adds.
fn inject(name: &str, app: &str) -> String {
    let image = Node::APP_IMAGE;
    let manifest = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop}}
spec:
  serviceAccountName: {name}
  containers:
  - name: app
    image: {image}
{app}"
    );
    let mut inject = Command::new(sidecar::binary());
    inject.args(["inject", "-", "--validate", "--set=access-log=json"]);
    inject.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut inject = inject.spawn().expect("starting the daemon's binary");
    let mut stdin = inject.stdin.take().expect("a pipe was asked for");
    stdin.write_all(manifest.as_bytes()).expect("writing to it");
    drop(stdin);
    let output = inject.wait_with_output().expect("waiting for it");
    assert!(output.status.success(), "sidecar inject: {manifest}");
    String::from_utf8(output.stdout).expect("manifests are UTF-8")
}

/// A node with an identity for each of these service accounts.
fn node(accounts: &[&str]) -> Node {
    let mut node = Node::new();
    let root = Holder::root();
    for account in accounts {
        let files = root.secret(&format!("ns/shop/sa/{account}"));
        node.secret(&format!("sidecar-{account}"), files);
    }
    node
}

const SERVER: &str = "
    command: [python3, -c]
    args:
    - |
      import signal, sys
      from http.server import *
      signal.signal(signal.SIGTERM, lambda *_: sys.exit())
      class Handler(BaseHTTPRequestHandler):
          def do_GET(self):
              self.send_response(200)
              self.end_headers()
              self.wfile.write(f'violet rhinoceros {self.client_address[0]}'.encode())
      ThreadingHTTPServer(('', 8080), Handler).serve_forever()
    readinessProbe: {httpGet: {path: /, port: 8080}}
";

const CLIENT: &str = "
    command: [sh, -c, 'trap exit TERM; sleep infinity & wait']
";

#[test]
fn two_pods_of_a_cluster_talk_by_mutual_tls() {
    let node = node(&["client", "server"]);
    let server = node.run(&inject("server", SERVER));
    let client = node.run(&inject("client", CLIENT));
    let capture = client.capture();
    let url = format!("http://{}:8080/", server.v4());
    let page = client.exec(
        "app",
        ["curl", "--silent", "--show-error", "--max-time", "20", &url],
    );
    assert_eq!(page.success().stdout, format!("{SECRET} {}", client.v4()));
    capture.finish().assert_encrypted(&[SECRET]);
    for (pod, direction, peer) in [
        (&client, "outbound", "server"),
        (&server, "inbound", "client"),
    ] {
        let connection = connection(pod, |connection| {
            // Validation before the app's start is in the log as well, and the node's probes are.
            connection.tls == "mutual" && connection.destination.port() == 8080
        });
        assert_eq!(connection.direction, direction);
        let peer = format!("spiffe://sidecar.local/ns/shop/sa/{peer}");
        assert_eq!(connection.peer.as_deref(), Some(&*peer));
    }
    for pod in [client, server] {
        assert!(pod.terminate().contains(&("sidecar".to_owned(), 0)));
    }
}

/// Waits until a pod's access log has a line about such a connection.
#[track_caller]
fn connection(pod: &ContainerPod, fits: impl Fn(&Connection) -> bool) -> Connection {
    let found = wait::within(wait::DEADLINE, || {
        let log = pod.log("sidecar");
        let lines: String = log
            .lines()
            .filter(|line| line.starts_with('{'))
            .fold(String::new(), |lines, line| lines + line + "\n");
        let connections = access_log::parse(&lines).into_iter();
        let mut connections = connections.filter_map(Line::connection);
        connections.find(|connection| fits(connection))
    });
    found.unwrap_or_else(|| panic!("no such connection is logged:\n{}", pod.log("sidecar")))
}
