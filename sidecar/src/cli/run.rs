use anyhow::Context;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{
    config::{self, Config},
    daemon::Daemon,
    logging,
    pod::{self, Cgroup},
};

/// Options of `sidecar run`.
#[derive(clap::Args, Debug)]
pub struct Run {
    #[command(flatten)]
    config: config::Args,
}

impl Run {
    /// Captures the pod and serves it until SIGTERM or SIGINT.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let _flush = logging::init(&config.log, config.log_format);
        let cgroup = match &config.cgroup {
            Some(path) => Cgroup::open(path)?,
            None => Cgroup::open(&pod::own_cgroup()?)?,
        };
        if let Some(netns) = &config.netns {
            pod::enter_netns(netns)?;
        }
        runtime(&config)?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let grace = config.drain_timeout;
            let daemon = Daemon::start(config, &cgroup)?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("draining for at most {grace:?}");
            daemon.stop(grace).await
        })
    }
}

/// The runtime that carries connections. Its threads inherit the network namespace.
pub(super) fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(config.workers)
        .enable_all()
        .build()
        .context("cannot start the worker threads")
}
