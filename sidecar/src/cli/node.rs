use std::{future::pending, io, net::SocketAddr, path::PathBuf, time::Duration};

use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::privileges;
use crate::{
    admin, bound,
    changes::Changes,
    config::{self, AccessLog, Settings, Source},
    identity::Accounts,
    kubernetes::{self, Client, Health},
    logging::{self, LogFile, OpenLines},
    naming::Directory,
    node::{self, Agent, Parts, Pods},
    pod,
    proxy::Drain,
    sandbox::Sandbox,
    telemetry::Collector,
};

/// Options of `sidecar node`.
#[derive(clap::Args, Debug)]
pub struct Node {
    #[command(flatten)]
    config: config::Args,

    /// The name of this node, as the Kubernetes API has it
    #[arg(
        long = "node",
        env = "SIDECAR_NODE",
        value_name = "NAME",
        help_heading = "Node"
    )]
    name: String,

    /// The root of the host's cgroup v2 tree [default: /run/sidecar/cgroup, or else where it is
    /// mounted]
    #[arg(
        long,
        env = "SIDECAR_CGROUP_ROOT",
        value_name = "PATH",
        help_heading = "Node"
    )]
    cgroup_root: Option<PathBuf>,

    /// How to ask the Kubernetes API [default: as a pod does, by its service account]
    #[arg(
        long,
        env = "SIDECAR_KUBECONFIG",
        value_name = "FILE",
        help_heading = "Node"
    )]
    kubeconfig: Option<PathBuf>,
}

impl Node {
    /// Captures and serves the pods of the node until SIGTERM or SIGINT; they stay closed for the next
    /// agent.
    pub fn run(self) -> anyhow::Result<()> {
        pod::return_large_blocks();
        let source = self.config.over(Settings::default());
        let config = source.load()?;
        let of_one_pod = [
            ("cgroup", config.cgroup.is_some()),
            ("netns", config.netns.is_some()),
        ];
        if let Some((key, _)) = of_one_pod.into_iter().find(|(_, is_set)| *is_set) {
            anyhow::bail!(
                "setting {key} is of one pod, and `sidecar node` serves all that ask for it; leave it out"
            );
        }
        privileges::to_attach(
            "node",
            "run it as root with CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_SYS_PTRACE",
        )?;
        let messages = logging::init(&config.log, config.log_format);
        let root = match self.cgroup_root {
            Some(root) => root,
            None => node::root()?,
        };
        let own = pod::own_cgroup()?;
        let of_any_pod = Sandbox {
            cgroup: root.clone(),
            ..Sandbox::default()
        };
        of_any_pod.try_for_lanes()?;
        pod::ensure_bpffs(&config.bpffs)?;
        if let Err(error) = pod::raise_descriptor_limit() {
            tracing::warn!(
                "cannot raise the limit of open files: {error}; each pod takes some fifty, and each connection two"
            );
        }
        let log_file = config.access_log_file.as_deref();
        let log_file = log_file
            .filter(|_| config.access_log != AccessLog::Off)
            .map(LogFile::open)
            .transpose()?;
        let collector = config.traces.as_ref().map(Collector::resolve).transpose()?;
        config.trust_files.check()?;

        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals.thread_block()?;
        let _flush = messages.queue();
        super::run::runtime(config.workers.min(WORKERS))?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let _heard = signal(SignalKind::hangup())?;
            signals.thread_unblock()?;
            let OpenLines {
                lines,
                flush: _flush_lines,
                reopener,
            } = logging::access_log_lines(config.access_log, log_file);
            if let Some(reopener) = reopener {
                tokio::spawn(reopener.keep());
            }
            let settings = follow(source.clone(), config.settings.clone());
            let accounts = Accounts::new(&config.identity, config.trust_domain.clone())?;
            let client = Client::connect(self.kubeconfig.as_deref()).await?;
            let health = client.health.clone();
            let known = kubernetes::pods(&client, &self.name);
            let directory = Directory::default();
            let naming = directory.clone();
            tokio::spawn(async move { kubernetes::names(&client, naming).await });
            let (pods, admin, drain) = (Pods::default(), config.admin, Drain::default());
            let agent = Agent::new(Parts {
                accounts,
                collector,
                config,
                directory,
                lines,
                node: self.name,
                own,
                pods: pods.clone(),
                root,
                source,
            })?;
            tokio::spawn(show(admin, pods, drain.clone(), health, agent.succeeded()));
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                drain.run(Duration::ZERO).await;
            };
            Box::pin(agent.run(known, settings, stop)).await;
            Ok(())
        })
    }
}

/// Serves the admin endpoint for as long as no other agent has begun after this one: with the node's
/// network, both have the same address.
async fn show(
    address: SocketAddr,
    pods: Pods,
    drain: Drain,
    health: Health,
    mut succeeded: watch::Receiver<bool>,
) {
    const PERIOD: Duration = Duration::from_millis(100);
    /// How often it is tried between two warnings.
    const PATIENCE: u32 = 100;
    let mut attempts = 0;
    while succeeded.wait_for(|succeeded| !succeeded).await.is_ok() {
        match bound::listen(address) {
            Ok(listener) => {
                attempts = 0;
                tokio::select! {
                    () = admin::serve_pods(listener, pods.clone(), drain.clone(), health.clone()) => {}
                    _ = succeeded.wait_for(|succeeded| *succeeded) => {}
                }
            }
            Err(error) => {
                attempts += 1;
                let is_unexpected = attempts == 1 && error.kind() != io::ErrorKind::AddrInUse;
                if is_unexpected || attempts % PATIENCE == 0 {
                    tracing::warn!(
                        "cannot open the admin endpoint on {address}: {error}; trying again"
                    );
                }
            }
        }
        sleep(PERIOD).await;
    }
}

/// Threads for what is of no pod: the API, identities, spans. Connections have the lanes.
const WORKERS: usize = 2;

/// The agent's settings, whenever their file changes, and on SIGHUP. What is wrong changes nothing.
fn follow(source: Source, started: Settings) -> watch::Receiver<Settings> {
    let (sender, receiver) = watch::channel(started.clone());
    tokio::spawn(async move {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut changes = source.path().map(|path| Changes::of([path]));
        let mut last = Ok(started);
        loop {
            tokio::select! {
                () = async { match &mut changes {
                    Some(changes) => changes.next().await,
                    None => pending().await,
                } } => {}
                () = async { match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => pending().await,
                } } => {}
                () = sender.closed() => return,
            }
            let read = source.reread().and_then(|settings| source.config(settings));
            let read = read
                .map(|config| config.settings)
                .map_err(|error| error.to_string());
            if read == last {
                continue;
            }
            match &read {
                Ok(settings) => drop(sender.send_replace(settings.clone())),
                Err(error) => {
                    tracing::error!(
                        outcome = "refused",
                        "kept the settings as they were: {error}"
                    );
                }
            }
            last = read;
        }
    });
    receiver
}
