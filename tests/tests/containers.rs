//! The daemon in containers, with the privileges that a cluster would give it.

use sidecar_tests::{
    Connection, ContainerPod, SECRET,
    access_log::{self, Line},
    container::Node,
    forge::Holder,
    wait,
};

/// A pod with a sidecar, as it would be handed to a cluster.
fn manifest(name: &str, app: &str, cgroup: &str) -> String {
    let image = Node::SIDECAR_IMAGE;
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop}}
spec:
  serviceAccountName: {name}
  initContainers:
  - name: sidecar-init
    image: {image}
    args: [init, --gid=4195, '--cgroup={cgroup}']
    env:
    - {{name: POD_UID, valueFrom: {{fieldRef: {{fieldPath: metadata.uid}}}}}}
    securityContext:
      runAsUser: 0
      runAsGroup: 4195
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL], add: [BPF, NET_ADMIN]}}
      readOnlyRootFilesystem: true
      seccompProfile: {{type: Unconfined}}
    volumeMounts: &mounts
    - {{name: cgroup, mountPath: /run/sidecar/cgroup, readOnly: true}}
    - {{name: bpf, mountPath: /sys/fs/bpf}}
    - {{name: identity, mountPath: /var/run/secrets/sidecar, readOnly: true}}
  - name: sidecar
    image: {image}
    args: [run, '--cgroup={cgroup}']
    restartPolicy: Always
    env:
    - {{name: POD_UID, valueFrom: {{fieldRef: {{fieldPath: metadata.uid}}}}}}
    - {{name: SIDECAR_ADMIN, value: '[::]:4195'}}
    - {{name: SIDECAR_ACCESS_LOG, value: json}}
    - {{name: SIDECAR_CERTIFICATE, value: /var/run/secrets/sidecar/tls.crt}}
    - {{name: SIDECAR_KEY, value: /var/run/secrets/sidecar/tls.key}}
    - {{name: SIDECAR_TRUST_BUNDLE, value: /var/run/secrets/sidecar/ca.crt}}
    securityContext:
      runAsNonRoot: true
      runAsUser: 4195
      runAsGroup: 4195
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
      readOnlyRootFilesystem: true
      seccompProfile: {{type: Unconfined}}
    startupProbe: {{httpGet: {{path: /readyz, port: 4195}}, periodSeconds: 1, failureThreshold: 60}}
    livenessProbe: {{httpGet: {{path: /healthz, port: 4195}}}}
    volumeMounts: *mounts
  containers:
  - name: app
    image: {}
{app}
  volumes:
  - {{name: cgroup, hostPath: {{path: /sys/fs/cgroup, type: Directory}}}}
  - {{name: bpf, hostPath: {{path: /sys/fs/bpf, type: Directory}}}}
  - {{name: identity, secret: {{secretName: {name}}}}}
",
        Node::APP_IMAGE
    )
}

/// The cgroup of the pod whose uid is in a variable, as a container sees the host's.
fn cgroup(node: &Node) -> String {
    let node = node.network().sandbox().cgroup().path();
    let node = node.strip_prefix("/sys/fs/cgroup");
    let node = node.expect("it is mounted there").display();
    format!("/run/sidecar/cgroup/{node}/kubepods/burstable/pod$(POD_UID)")
}

/// A node with an identity for each of these pods, in a secret of the pod's name.
fn node(pods: &[&str]) -> Node {
    let mut node = Node::new();
    let root = Holder::root();
    for pod in pods {
        node.secret(pod, root.secret(&format!("ns/shop/sa/{pod}")));
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
    let server = node.run(&manifest("server", SERVER, &cgroup(&node)));
    let client = node.run(&manifest("client", CLIENT, &cgroup(&node)));
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
        let connection = connection(pod, |connection| connection.tls == "mutual");
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
