//! The daemon: puts the rooms together, for one pod.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::watch;

use crate::{
    admin,
    bpf::{Datapath, Loss, OwnListener, Pins, Place, Size},
    capture::{Capture, Service, Serving},
    config::{AccessLog, Config, Source},
    logging::{self, LogFile, OpenLog},
    naming::Directory,
    pod::{self, Cgroup},
    proxy::Drain,
    reload::Reload,
    sandbox::Sandbox,
    telemetry::{self, Collector, Exporting, Telemetry, Traces},
    tls,
};

/// A pod whose connections are captured, and wait in the proxy's listeners to be served.
///
/// Everything that takes privileges has been done, and nothing that takes a thread.
pub struct Captured {
    config: Config,
    /// Where the settings came from.
    source: Source,
    /// The pod's connections.
    capture: Capture,
    /// Where the access log goes, if it is a file.
    log_file: Option<LogFile>,
    /// Where spans go: names are resolved while the sandbox is open.
    collector: Option<SocketAddr>,
    /// The admin endpoint's, bound; `None` while the sidecar that is replaced has its address.
    admin: Option<OwnListener>,
    /// For messages.
    cgroup: String,
}

impl Captured {
    /// Captures the pod: the processes of `cgroup`, in the current network namespace. If another
    /// sidecar serves it, or `sidecar init` has closed it, it is taken over.
    ///
    /// Everything that can be refused is refused before anything is attached.
    pub fn new(config: Config, source: Source, cgroup: &Cgroup) -> anyhow::Result<Self> {
        config.identity.check()?;
        config.trust_files.check()?;
        let log_file = config.access_log_file.as_deref();
        let log_file = log_file
            .filter(|_| config.access_log != AccessLog::Off)
            .map(LogFile::open)
            .transpose()?;
        let collector = config.traces.as_ref().map(Collector::resolve).transpose()?;
        pod::ensure_bpffs(&config.bpffs)?;
        if let Err(error) = pod::raise_descriptor_limit() {
            tracing::warn!(
                "cannot raise the limit of open files: {error}; each connection takes two"
            );
        }

        let place = Place::new(cgroup).context("cannot open the pod's network namespace")?;
        let pins = Pins::of(&config.bpffs, cgroup);
        let datapath = if pod::missing_capabilities().is_empty() {
            Datapath::load(place, pins, Size::Declared)?
        } else {
            Datapath::adopt(place, pins)?
        };
        let sockets = datapath.sockets();
        let admin = match OwnListener::bind(&sockets, config.admin) {
            // Until it has noticed that it is replaced.
            Err(error) if error.is_address_in_use() && datapath.is_served()? => None,
            bound => Some(bound?),
        };
        if !config.admin.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "the admin endpoint on {} can be reached from the network and asks for no password; set --admin to a loopback address, unless a network policy guards the port",
                config.admin
            );
        }

        let capture = Capture::new(datapath, &config.policy)?;
        Ok(Self {
            config,
            source,
            capture,
            log_file,
            collector,
            admin,
            cgroup: cgroup.to_string(),
        })
    }

    /// What serving the pod goes on to need of the machine.
    pub fn sandbox(&self, cgroup: &Cgroup) -> Sandbox {
        let (mut files, directories) = self.config.identity.reads();
        files.extend(self.config.trust_files.paths().map(ToOwned::to_owned));
        files.extend(self.source.path().map(ToOwned::to_owned));
        Sandbox {
            admin_port: self.config.admin.port(),
            appended: self.log_file.as_ref().map(|file| file.path().to_owned()),
            cgroup: cgroup.path().to_owned(),
            directories,
            files,
            pins: self
                .capture
                .datapath()
                .removable_pins()
                .map(ToOwned::to_owned),
        }
    }

    /// Begins to serve the connections. Call it inside a runtime whose threads are all in the
    /// pod's network namespace.
    pub fn serve(self) -> anyhow::Result<Daemon> {
        let Self {
            config,
            source,
            capture,
            log_file,
            collector,
            admin,
            cgroup,
        } = self;
        let OpenLog {
            access_log,
            flush,
            reopener,
        } = logging::access_log(config.access_log, config.access_log_choice, log_file);
        if let Some(reopener) = reopener {
            tokio::spawn(reopener.keep());
        }
        let drain = Drain::default();
        let (traces, export) = collector.map(Traces::to).unzip();
        let telemetry = Telemetry::new(telemetry::Options {
            access_log,
            // Nobody tells a sidecar who is behind an address.
            directory: Directory::default(),
            labels: config.labels,
            observing: config.observing,
            series: config.series,
            traces: traces.unwrap_or_default(),
        })?;
        let exporting = export.map(|export| export.start(drain.clone()));

        let identity = tls::keep(config.identity, config.trust_files, telemetry.clone());
        let (policy_sender, policy) = watch::channel(Arc::new(config.policy));
        let mut serving = capture.serve(Service {
            identity: identity.clone(),
            limits: config.limits,
            policy,
            telemetry: telemetry.clone(),
            drain: drain.clone(),
        })?;
        if let Some(tables) = serving.tables() {
            let telemetry = telemetry.clone();
            let reload = Reload::new(source, config.settings, policy_sender, tables, telemetry);
            tokio::spawn(reload.keep());
        }
        // Last, so that nobody is told of readiness before the pod is captured.
        let admin = match admin.map(OwnListener::listen).transpose() {
            // Another sidecar was started at the same time, and was faster.
            Err(error) if error.is_address_in_use() => None,
            listening => listening?,
        };
        let admin_address = match &admin {
            Some(listener) => listener.local_addr()?,
            None => config.admin,
        };
        let (sockets, draining) = (serving.datapath.sockets(), drain.clone());
        tokio::spawn(
            serving
                .closing
                .clone()
                .run_until_cancelled_owned(async move {
                    let listener = match admin {
                        Some(listener) => listener,
                        None => OwnListener::when_free(&sockets, admin_address).await,
                    };
                    admin::serve(listener, telemetry, identity, draining).await;
                }),
        );
        serving.datapath.commit();
        tracing::info!(admin = %admin_address, "captured {cgroup}");
        Ok(Daemon {
            serving,
            exporting,
            flush,
        })
    }
}

/// A pod whose connections are captured and served.
pub struct Daemon {
    /// Its connections, and the admin endpoint, which closes with what goes on beside them.
    serving: Serving,
    /// Sends spans.
    exporting: Option<Exporting>,
    /// Writes the last lines of the access log.
    flush: Option<logging::Flush>,
}

impl Daemon {
    /// Serves until told to stop, or until another sidecar has taken over and what is open here has
    /// ended.
    pub async fn run(self, stop: impl Future<Output = ()>, grace: Duration) -> anyhow::Result<()> {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            () = &mut stop => self.stop(grace).await,
            loss = self.serving.datapath.lost() => {
                self.finish(loss, stop, grace).await;
                Ok(())
            }
        }
    }

    /// Stops taking connections, lets those that are open end until `grace` is over, or until nobody is left in the pod to hear
    /// what comes on them, and detaches.
    ///
    /// New connections are refused while it lasts: nothing travels in plaintext that should not.
    pub async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        if let Some(loss) = self.serving.datapath.loss()? {
            self.finish(loss, std::future::ready(()), grace).await;
            return Ok(());
        }
        if let Some(exporting) = &self.exporting {
            exporting.flush().await;
        }
        tokio::select! {
            () = self.serving.drain.run(grace) => {}
            () = self.app_done() => self.serving.drain.run(Duration::ZERO).await,
        }
        // While the pod is still captured: what leaves it now leaves it as before, or not at all.
        if let Some(exporting) = self.exporting {
            exporting.finish().await;
        }
        self.serving.closing.cancel();
        self.serving.datapath.leave()?;
        drop(self.flush);
        Ok(())
    }

    /// Waits until the app has ended and all that it has said has arrived. What peers say then is for nobody: a peer that waits
    /// for a request on a connection that is kept would hold the pod until `grace` is over.
    async fn app_done(&self) {
        const PERIOD: Duration = Duration::from_millis(100);
        let sockets = self.serving.datapath.sockets();
        let mut seen = false;
        loop {
            // Twice: what has been read from one leg may not be written to the other yet.
            let done = sockets.is_app_done();
            if done && seen {
                return;
            }
            seen = done;
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Finishes what is open after we have lost the service of the pod; leaves everything attached.
    ///
    /// Nothing is cut, however long it lasts: a stream may live for hours, and costs a process that
    /// waits. Once `stop` says so, it may last for `grace`.
    async fn finish(self, loss: Loss, stop: impl Future<Output = ()>, grace: Duration) {
        // The address of the admin endpoint is for the other one, and the turn to read what TCP
        // measures, which ends by itself only when there is something to read.
        self.serving.closing.cancel();
        match loss {
            Loss::Removed => tracing::warn!(
                "what was pinned has been removed, and the pod is not captured any more: finishing what is open"
            ),
            Loss::Replaced => {
                tracing::info!("another sidecar serves the pod now: finishing what is open");
            }
        }
        if let Some(exporting) = &self.exporting {
            exporting.flush().await;
        }
        let told = async {
            stop.await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = self.serving.drain.hand_over() => {}
            () = told => self.serving.drain.run(Duration::ZERO).await,
        }
        if let Some(exporting) = self.exporting {
            exporting.finish().await;
        }
        drop(self.flush);
    }
}
