use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{
    config::{self, Settings},
    daemon::Captured,
    logging,
    pod::{self, Cgroup},
    sandbox::Sandbox,
};

/// Options of `sidecar run`.
#[derive(clap::Args, Debug)]
pub struct Run {
    #[command(flatten)]
    config: config::Args,
}

impl Run {
    /// Captures the pod, or takes it over, gives up all privileges, and serves it until SIGTERM,
    /// SIGINT or the next sidecar.
    ///
    /// The order is what keeps it safe: what takes privileges comes first, on the only thread;
    /// then the sandbox, which threads inherit; then the threads.
    pub fn run(self) -> anyhow::Result<()> {
        let source = self.config.over(Settings::default());
        let config = source.load()?;
        let messages = logging::init(&config.log, config.log_format);
        let cgroup = Cgroup::open_or_find(config.cgroup.as_deref())?;
        if let Some(netns) = &config.netns {
            pod::enter_netns(netns)?;
        }
        let grace = config.drain_timeout;
        let workers = config.workers;
        // Whoever stops us meanwhile is heard later, so that nothing is left half attached.
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        signals.thread_block()?;

        // What this kernel or container does not take is found out while nothing is attached.
        Sandbox::of(&cgroup).try_on_a_thread()?;
        let captured = Captured::new(config, source, &cgroup)?;
        captured.sandbox(&cgroup).enter()?;

        let _flush = messages.queue();
        runtime(workers)?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            // From here on it ends nothing; what it asks for now, the first look at the settings does.
            let _heard = signal(SignalKind::hangup())?;
            signals.thread_unblock()?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("draining for at most {grace:?}");
            };
            captured.serve()?.run(stop, grace).await
        })
    }
}

/// The runtime that carries connections. Its threads inherit the network namespace.
pub(super) fn runtime(workers: usize) -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start the worker threads")
}
