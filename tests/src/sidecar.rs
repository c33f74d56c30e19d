//! The daemon under test, as it runs in a pod.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::signal::Signal;

use crate::{
    Connection, Metrics, Output, Process, Program, Sandbox,
    access_log::{self, Line},
    http,
    namespace::Namespace,
    wait,
};

/// Where the admin endpoint listens, inside the pod.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4195);

/// A `sidecar run` in a pod; killed when dropped.
#[derive(Debug)]
pub struct Sidecar {
    /// The daemon.
    process: Process,
    /// The pod's network namespace, where the admin endpoint is.
    namespace: Arc<Namespace>,
    /// The BPF file system the daemon pins to.
    bpffs: PathBuf,
}

/// The daemon's binary: `$SIDECAR_BIN`, or that of a debug build.
///
/// Debug builds keep their assertions, and the dependencies are optimised all the same.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("SIDECAR_BIN") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let path = target.join("debug/sidecar");
    assert!(
        path.exists(),
        "there is no {}: run `cargo xtask build`",
        path.display()
    );
    path
}

impl Sidecar {
    /// Starts the daemon by a command line of [`Pod::sidecar_run`](crate::Pod::sidecar_run).
    pub(crate) fn start(run: Program<'_>, sandbox: &Sandbox, bpffs: PathBuf) -> Self {
        let process = run.start();
        Self {
            process,
            namespace: Arc::clone(sandbox.namespace()),
            bpffs,
        }
    }

    /// Waits until `/readyz` says that traffic is steered.
    ///
    /// # Panics
    ///
    /// When the daemon ends instead; the message holds its log.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let ready = wait::within(wait::DEADLINE, || match self.request("/readyz") {
            Some((200, _)) => Some(true),
            _ => self.process.status().map(|_| false),
        });
        let status = self.process.status();
        assert!(
            ready == Some(true),
            "the sidecar is not ready ({status:?}):\n{}",
            self.log()
        );
    }

    /// Status and body of `/readyz`, once the daemon answers at all.
    #[track_caller]
    pub fn readiness(&self) -> (u16, String) {
        wait::until_some("the admin endpoint answers", || self.request("/readyz"))
    }

    /// Waits until the daemon has logged a line with all of these words.
    #[track_caller]
    pub fn logs(&self, words: &[&str]) {
        let says = || {
            let log = self.log();
            log.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        let said = wait::within(wait::DEADLINE, || says().then_some(()));
        assert!(
            said.is_some(),
            "the sidecar does not say {words:?}:\n{}",
            self.log()
        );
    }

    /// Waits until the daemon says that it serves the pod. Unlike readiness, no other daemon can say
    /// it in its place.
    #[track_caller]
    pub fn wait_until_serving(&mut self) {
        self.process.wait_for_stderr("captured cgroup");
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The daemon's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The access log on standard output.
    pub fn access_log(&self) -> Vec<Line> {
        access_log::parse(&self.process.stdout())
    }

    /// The access log: every connection that has ended.
    pub fn connections(&self) -> Vec<Connection> {
        let lines = self.access_log().into_iter();
        lines.filter_map(Line::connection).collect()
    }

    /// Waits for the first entry of the access log that fits.
    #[track_caller]
    pub fn connection(&self, fits: impl Fn(&Connection) -> bool) -> Connection {
        let found = wait::within(wait::DEADLINE, || {
            self.connections()
                .into_iter()
                .find(|connection| fits(connection))
        });
        found.unwrap_or_else(|| {
            let log = self.log();
            panic!(
                "no such entry in the access log {:#?}\nlog:\n{log}",
                self.connections()
            )
        })
    }

    /// Waits for the entry about the only connection there was in a direction.
    ///
    /// # Panics
    ///
    /// When there was more than one.
    #[track_caller]
    pub fn only_connection(&self, direction: &str) -> Connection {
        let connection = self.connection(|connection| connection.direction == direction);
        let all = self.connections();
        let count = all
            .iter()
            .filter(|connection| connection.direction == direction)
            .count();
        assert_eq!(
            count, 1,
            "one {direction} connection was expected: {all:#?}"
        );
        connection
    }

    /// Waits until `count` connections have failed, and checks that both logs and the metrics tell
    /// of them by one code as failures in this direction, and of nothing else.
    #[track_caller]
    pub fn failures(&self, direction: &str, count: usize) -> Vec<Connection> {
        let logged = || {
            self.connections()
                .into_iter()
                .filter(Connection::has_failed)
                .collect::<Vec<_>>()
        };
        wait::until(format!("{count} failures are logged"), || {
            logged().len() >= count
        });
        let (logged, metrics) = (logged(), self.metrics());
        let counted = |labels: &[_]| metrics.count("sidecar_connections_failed_total", labels);
        for failure in &logged {
            assert_eq!(
                (&*failure.direction, failure.sent),
                (direction, 0),
                "{failure:?}"
            );
            let labels = [("direction", direction), ("reason", &*failure.close)];
            assert_ne!(counted(&labels), 0, "{failure:?} is not counted");
            self.logs(&[&format!("reason={}", failure.close)]);
        }
        assert_eq!(
            (logged.len(), counted(&[])),
            (count, count as u64),
            "{logged:#?}"
        );
        logged
    }

    /// The metrics as they are now.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics"))
    }

    /// Waits until the metrics fit, and returns them.
    #[track_caller]
    pub fn metrics_when(&self, fits: impl Fn(&Metrics) -> bool) -> Metrics {
        let found = wait::within(wait::DEADLINE, || Some(self.metrics()).filter(&fits));
        found.unwrap_or_else(|| panic!("the metrics never fitted: {}", self.get("/metrics")))
    }

    /// How often the kernel side has counted `event` (`sidecar_kernel_events_total`).
    #[track_caller]
    pub fn kernel_events(&self, event: &str) -> u64 {
        self.metrics()
            .count("sidecar_kernel_events_total", &[("event", event)])
    }

    /// The body of a page of the admin endpoint.
    ///
    /// # Panics
    ///
    /// When there is no such page.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.request(path).unwrap_or_else(|| {
            panic!(
                "the admin endpoint does not answer to {path}:\n{}",
                self.log()
            )
        });
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.status().is_some()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops the daemon with SIGTERM.
    ///
    /// # Panics
    ///
    /// When it has panicked anywhere, does not exit with 0, or leaves pins.
    #[track_caller]
    pub fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// Waits until the daemon, which has been told to stop, is gone.
    ///
    /// # Panics
    ///
    /// Like [`Self::stop`].
    #[track_caller]
    pub fn wait(self) {
        let bpffs = self.bpffs.clone();
        let output = self.wait_for_exit();
        assert_eq!(
            pins(&bpffs),
            Vec::<PathBuf>::new(),
            "pins were left: {output}"
        );
    }

    /// Waits until the daemon is gone, whatever is pinned then.
    ///
    /// # Panics
    ///
    /// When it has panicked anywhere, or does not exit with 0.
    #[track_caller]
    pub fn wait_for_exit(self) -> Output {
        let output = self.process.wait().success();
        assert!(!output.stderr.contains("panicked"), "{output}");
        output
    }

    /// Status and body of a page, if the endpoint answers at all.
    fn request(&self, path: &str) -> Option<(u16, String)> {
        http::get(&self.namespace, ADMIN, path)
    }
}

/// Everything that sidecars have pinned in a BPF file system.
pub fn pins(bpffs: &Path) -> Vec<PathBuf> {
    // Beside it stand files of the kernel's own.
    files(&bpffs.join("sidecar"))
}

/// The files below a directory, none if it does not exist.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
