//! A real API server with its etcd, on loopback, as `cargo xtask kube-apiserver` builds it.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::wait;

/// What names the program.
pub const VARIABLE: &str = "SIDECAR_KUBE_APISERVER";

/// A start takes a quarter of a minute on an idle machine.
const START: Duration = Duration::from_mins(3);

/// An API server that knows two users by their tokens: `admin`, who may do everything, and `agent`,
/// who is the service account `sidecar-node` of the namespace `sidecar-node`.
#[derive(Debug)]
pub struct KubeApiServer {
    server: Option<Process>,
    _etcd: Process,
    etcd: SocketAddr,
    address: SocketAddr,
    directory: PathBuf,
}

impl KubeApiServer {
    /// Starts both in a directory.
    ///
    /// # Panics
    ///
    /// Where they do not start, or nobody says where the API server is.
    #[track_caller]
    pub fn start(directory: &Path) -> Self {
        let [etcd, peer, address] = [free(), free(), free()];
        let key = directory.join("key");
        succeed(Command::new("openssl").args(["genrsa", "-out"]).arg(&key));
        let users = "admin,admin,1,\"system:masters\"\n\
             agent,system:serviceaccount:sidecar-node:sidecar-node,2,\"system:serviceaccounts\"\n";
        fs::write(directory.join("tokens"), users).expect("writing tokens");
        let process = Process::start(
            Command::new("etcd")
                .arg("--unsafe-no-fsync")
                .arg(format!("--data-dir={}", directory.join("etcd").display()))
                .arg(format!("--listen-client-urls=http://{etcd}"))
                .arg(format!("--advertise-client-urls=http://{etcd}"))
                .arg(format!("--listen-peer-urls=http://{peer}")),
            &directory.join("etcd.log"),
        );
        let mut server = Self {
            server: None,
            _etcd: process,
            etcd,
            address,
            directory: directory.to_owned(),
        };
        server.resume();
        server
    }

    /// Ends the API server; etcd stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again, on the same address.
    #[track_caller]
    pub fn resume(&mut self) {
        let program = env::var_os(VARIABLE);
        let program = program
            .unwrap_or_else(|| panic!("{VARIABLE} is not set: run `cargo xtask kube-apiserver`"));
        let file = |name: &str| self.directory.join(name).display().to_string();
        let (key, address) = (file("key"), self.address);
        let mut command = Command::new(program);
        command
            .arg(format!("--etcd-servers=http://{}", self.etcd))
            .arg(format!("--bind-address={}", address.ip()))
            .arg(format!("--secure-port={}", address.port()))
            .arg(format!("--cert-dir={}", file("certificates")))
            .arg(format!("--token-auth-file={}", file("tokens")))
            .arg(format!("--service-account-key-file={key}"))
            .arg(format!("--service-account-signing-key-file={key}"))
            .args([
                "--insecure-port=0",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=198.18.64.0/24",
                "--disable-admission-plugins=ServiceAccount",
                // Nobody is to be told where it is.
                "--endpoint-reconciler-type=none",
                "--advertise-address=198.18.0.1",
            ]);
        self.server = Some(Process::start(
            &mut command,
            &self.directory.join("server.log"),
        ));
        let ready = wait::within(START, || {
            (self.ask("admin", "readyz").as_deref() == Some("ok")).then_some(())
        });
        ready.unwrap_or_else(|| {
            panic!(
                "no API server: {}",
                fs::read_to_string(file("server.log")).unwrap_or_default()
            )
        });
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig for the agent that leads to an address.
    pub fn kubeconfig(&self, address: SocketAddr) -> PathBuf {
        self.kubeconfig_of("agent", address)
    }

    fn kubeconfig_of(&self, user: &str, address: SocketAddr) -> PathBuf {
        let path = self.directory.join(format!("kubeconfig-{user}"));
        let cluster = json!({
            "server": format!("https://{address}"),
            "certificate-authority": self.certificate(),
        });
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        // Another thread may be about to read it.
        let new = path.with_extension(format!("{:?}", thread::current().id()));
        fs::write(&new, content.to_string()).expect("writing a kubeconfig");
        fs::rename(&new, &path).expect("in one directory");
        path
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    /// What it answers to a user; for a watch, all of it, until it ends by itself.
    pub fn ask(&self, user: &str, path: &str) -> Option<String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
            .arg(self.certificate())
            .arg("--header")
            .arg(format!("Authorization: Bearer {user}"))
            .arg(format!("https://{}/{path}", self.address))
            .output()
            .expect("curl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    /// Runs kubectl as the administrator, with this on its input, and returns what it prints.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let printed = self.try_kubectl(arguments, input);
        printed.unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// The same, or else what it says of its failure.
    #[track_caller]
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig_of("admin", self.address))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("kubectl reads");
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Makes an object, with its status.
    #[track_caller]
    pub fn create(&self, object: &Value) {
        self.kubectl(
            &["create", "--validate=false", "-f", "-"],
            &object.to_string(),
        );
        if object["status"].is_object() {
            let metadata = &object["metadata"];
            let [namespace, name] =
                ["namespace", "name"].map(|key| metadata[key].as_str().expect("a name"));
            let kind = object["kind"].as_str().expect("a kind");
            let patch = json!({"status": object["status"]}).to_string();
            self.kubectl(
                &[
                    "patch",
                    "--subresource=status",
                    "-n",
                    namespace,
                    kind,
                    name,
                    "--type=merge",
                    "-p",
                    &patch,
                ],
                "",
            );
        }
    }

    /// Has etcd forget everything but the newest state.
    #[track_caller]
    pub fn compact(&self) {
        let post = |path: &str, body: Value| -> Value {
            let output = Command::new("curl")
                .args(["--silent", "--fail", "--data", &body.to_string()])
                .arg(format!("http://{}/v3/{path}", self.etcd))
                .output()
                .expect("curl starts");
            serde_json::from_slice(&output.stdout).expect("etcd answers")
        };
        // Any key: what counts is the revision that the answer is headed by.
        let newest = post("kv/range", json!({"key": "AA=="}))["header"]["revision"].clone();
        post(
            "kv/compaction",
            json!({"revision": newest, "physical": true}),
        );
    }
}

/// A program that ends with its guard.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor is left"))
            .stderr(log)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("starting {command:?}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("pids are small"));
        let _ = kill(pid, Signal::SIGTERM);
        let began = Instant::now();
        while began.elapsed() < wait::DEADLINE {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A way to a server that can be cut.
#[derive(Debug)]
pub struct Way {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Way {
    /// From a new address to this one. It stays open until the process ends.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let way = Self {
            address,
            state: Arc::clone(&state),
        };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.is_cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let [mut from, mut to] =
                        [from, to].map(|s| s.try_clone().expect("a descriptor"));
                    thread::spawn(move || {
                        let _ = pass(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
                state.streams.extend([client, server]);
            }
        });
        way
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and new ones at once.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets new connections pass.
    pub fn mend(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_cut = false;
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count])?;
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("a listener has an address")
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
