//! The daemon in containers, with the privileges that a cluster would give it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use sidecar_tests::{
    Connection, ContainerPod, Output, SECRET,
    access_log::{self, Line},
    container::Node,
    forge::Holder,
    manifests, sidecar, wait,
};

/// How long a sidecar may take to end that has nothing left to do.
const AT_ONCE: Duration = Duration::from_secs(2);

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
    node_of(&Holder::root(), accounts)
}

fn node_of(root: &Holder, accounts: &[&str]) -> Node {
    let mut node = Node::new();
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
    let page = fetch(&client, &server);
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

#[test]
fn an_app_that_restarts_stays_covered() {
    let node = node(&["client", "server"]);
    let mut server = node.run(&inject("server", SERVER));
    let mut client = node.run(&inject("client", CLIENT));
    for pod in [&mut server, &mut client] {
        pod.kill("app");
        pod.restart("app");
    }
    assert_talk_encrypted(&client, &server);
}

#[test]
fn a_sidecar_that_is_killed_takes_its_pod_over_when_it_is_back() {
    let node = node(&["client", "server"]);
    let server = node.run(&inject("server", SERVER));
    let client = node.run(&inject("client", CLIENT));
    let mut pods = [client, server];
    for mortal in 0..pods.len() {
        let capture = pods[0].capture();
        pods[mortal].kill("sidecar");
        let [client, server] = &pods;
        let page = fetch(client, server);
        assert!(!page.status.success(), "pod {mortal} is open: {page}");
        assert!(!capture.finish().contains(SECRET), "pod {mortal}");
        pods[mortal].restart("sidecar");
        let [client, server] = &pods;
        assert_talk_encrypted(client, server);
    }
}

/// Fetches the server's page once, and ends.
const JOB: &str = "
    command: [curl, --silent, --show-error, --max-time, '20', 'http://SERVER:8080/']
  restartPolicy: Never
";

#[test]
fn a_job_completes_with_its_app() {
    let node = node(&["job", "server"]);
    let server = node.run(&inject("server", SERVER));
    let job = JOB.replace("SERVER", &server.v4().to_string());
    let job = node.run(&inject("job", &job));
    assert_eq!(job.wait_for_exit("app", wait::DEADLINE), 0);
    assert_eq!(job.log("app"), format!("{SECRET} {}", job.v4()));
    assert!(job.runs("sidecar"));
    job.signal("sidecar", Signal::SIGTERM);
    assert_eq!(job.wait_for_exit("sidecar", AT_ONCE), 0);
}

/// Answers line by line. Told to end, it answers three lines more, says goodbye to whom it talked to on a
/// new connection, and ends with 0.
const DRAINING: &str = "
    command: [python3, -u, -c]
    args:
    - |
      import signal, socket
      told = []
      signal.signal(signal.SIGTERM, lambda *_: told.append(1))
      listener = socket.create_server(('', 8080))
      stream, peer = listener.accept()
      left = 3
      for line in stream.makefile():
          stream.sendall(line.encode())
          left -= len(told)
          if not left:
              break
      assert not left, 'the connection has ended'
      goodbye = socket.create_connection((peer[0], 8081), 10)
      goodbye.sendall(b'violet rhinoceros')
      goodbye.shutdown(socket.SHUT_WR)
      answer = goodbye.recv(100)
      assert answer == b'farewell', answer
";

/// Talks line by line until nobody answers, and answers a goodbye.
const TALKING: &str = r"
    command: [python3, -u, -c]
    args:
    - |
      import signal, socket, sys, threading, time
      signal.signal(signal.SIGTERM, lambda *_: sys.exit())
      listener = socket.create_server(('', 8081))
      def farewell():
          stream, _ = listener.accept()
          while stream.recv(100):
              pass
          stream.sendall(b'farewell')
          stream.close()
      threading.Thread(target=farewell, daemon=True).start()
      stream = socket.create_connection(('SERVER', 8080))
      answers = stream.makefile()
      while True:
          stream.sendall(b'violet rhinoceros\n')
          if not answers.readline():
              break
          print('answered')
          time.sleep(0.05)
      signal.pause()
";

#[test]
fn an_app_that_drains_is_served_to_its_end_and_the_sidecar_ends_after_it() {
    let node = node(&["client", "server"]);
    let server = node.run(&inject("server", DRAINING));
    let talking = TALKING.replace("SERVER", &server.v4().to_string());
    let client = node.run(&inject("client", &talking));
    wait::until("the pods talk", || client.log("app").contains("answered"));
    let ends = server.terminate();
    let expected = [("app".to_owned(), 0), ("sidecar".to_owned(), 0)];
    assert_eq!(ends, expected, "{}", server.log("app"));
}

/// What a pod needs that the agent of its node captures: its label. That it waits for the agent is its own
/// wish.
fn captured(name: &str, app: &str) -> String {
    let (image, sidecar) = (Node::APP_IMAGE, Node::SIDECAR_IMAGE);
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{sidecar.mesh/inject: node}}}}
spec:
  serviceAccountName: {name}
  initContainers:
  - name: validate
    image: {sidecar}
    args: [validate]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      seccompProfile: {{type: RuntimeDefault}}
  containers:
  - name: app
    image: {image}
{app}"
    )
}

/// The pod that a cluster makes of the `DaemonSet` in `deploy/`, with one thing more: it is told by a file
/// where the API is, since the one here has no certificate.
fn agent() -> Value {
    let text = manifests::render("deploy/kustomize/overlays/node-agent-dev-ca");
    let objects = manifests::objects(&text);
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet");
    let template = &set.expect("the overlay has one")["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
    });
    pod["metadata"]["name"] = "agent".into();
    pod["metadata"]["namespace"] = "sidecar-node".into();
    let mut add = |pointer: &str, value| {
        let list = pod.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.expect("the DaemonSet has some").push(value);
    };
    add(
        "/spec/containers/0/env",
        json!({"name": "SIDECAR_KUBECONFIG", "value": "/run/kubernetes/kubeconfig"}),
    );
    add(
        "/spec/containers/0/volumeMounts",
        json!({"name": "kubeconfig", "mountPath": "/run/kubernetes", "readOnly": true}),
    );
    add(
        "/spec/volumes",
        json!({"name": "kubeconfig", "secret": {"secretName": "kubeconfig"}}),
    );
    pod
}

/// A node like [`node`], on which an agent can run.
fn node_for_agent(accounts: &[&str]) -> Node {
    let root = Holder::root();
    let mut node = node_of(&root, accounts);
    node.secret("sidecar-dev-ca", root.dev_ca());
    let [_, _, (_, authority)] = root.secret("any");
    let kubeconfig = node.kubeconfig();
    let files = [("kubeconfig", kubeconfig), ("ca.crt", authority)];
    node.secret("kubeconfig", files);
    node
}

#[test]
fn an_agent_in_a_container_captures_pods_that_wait_for_it() {
    let node = node_for_agent(&[]);
    let (agent, [server, client]) = thread::scope(|scope| {
        let pods = [("server", SERVER), ("client", CLIENT)].map(|(name, app)| {
            let (node, manifest) = (&node, captured(name, app));
            scope.spawn(move || node.run(&manifest))
        });
        wait::until("both pods wait", || {
            let running = node.running();
            running.iter().filter(|name| *name == "validate").count() == pods.len()
        });
        assert!(!node.running().contains(&"app".to_owned()));
        let agent = node.run(&agent().to_string());
        let pods = pods.map(|pod| pod.join().expect("the pod comes up"));
        (agent, pods)
    });
    assert_talk_encrypted(&client, &server);
    drop((client, server));
    assert_eq!(agent.terminate(), [("agent".to_owned(), 0)]);
}

#[test]
fn pods_of_an_agent_and_pods_with_a_sidecar_talk_by_mutual_tls() {
    let node = node_for_agent(&["own"]);
    let _agent = node.run(&agent().to_string());
    let of_agent = node.run(&captured("of-agent", SERVER));
    let own = node.run(&inject("own", SERVER));
    for (client, server, direction) in [(&of_agent, &own, "inbound"), (&own, &of_agent, "outbound")]
    {
        assert_talk_encrypted(client, server);
        let connection = connection(&own, |connection| {
            connection.direction == direction
                && connection.tls == "mutual"
                && connection.destination == (server.v4(), 8080).into()
        });
        let peer = "spiffe://sidecar.local/ns/shop/sa/of-agent";
        assert_eq!(connection.peer.as_deref(), Some(peer));
    }
}

#[test]
fn what_the_documents_have_one_ask_is_answered_inside_the_containers() {
    let node = node_for_agent(&["own"]);
    let agent = node.run(&agent().to_string());
    let of_agent = node.run(&captured("of-agent", SERVER));
    let own = node.run(&inject("own", SERVER));
    drop(fetch(&own, &of_agent).success());

    let ask = |pod: &ContainerPod, container: &str, args: &[&str]| {
        let command = ["/sidecar"].iter().chain(args).copied();
        let answer = pod.exec(container, command.collect::<Vec<_>>());
        answer.success().stdout
    };
    assert!(ask(&own, "sidecar", &["edges"]).contains("of-agent"));
    ask(&own, "sidecar", &["connections"]);
    ask(
        &own,
        "sidecar",
        &["tap", "--kind", "denied,failed", "--for", "1s"],
    );
    assert!(ask(&agent, "agent", &["status"]).contains("is running"));
    assert!(ask(&agent, "agent", &["pods"]).contains("of-agent"));
}

/// Has the client's app ask for the server's page.
fn fetch(client: &ContainerPod, server: &ContainerPod) -> Output {
    let url = format!("http://{}:8080/", server.v4());
    let curl = ["curl", "--silent", "--show-error", "--max-time", "20", &url];
    client.exec("app", curl)
}

/// Has the client's app ask for the server's page, and looks at what passes between the pods.
#[track_caller]
fn assert_talk_encrypted(client: &ContainerPod, server: &ContainerPod) {
    let capture = client.capture();
    let page = fetch(client, server).success().stdout;
    assert_eq!(page, format!("{SECRET} {}", client.v4()));
    capture.finish().assert_encrypted(&[SECRET]);
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
