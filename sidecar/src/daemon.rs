//! The daemon: puts the rooms together, for one pod.

use std::{os::fd::AsFd, sync::Arc};

use anyhow::Context;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    admin,
    bpf::{self, Datapath, Listeners, OwnListener, RuleMaps, Rules, pins::Pins},
    config::{Config, Source},
    identity::Origin,
    logging,
    pod::{self, Cgroup},
    policy::Direction,
    proxy::{Drain, Establishing, Proxy},
    reload::Reload,
    sandbox::Sandbox,
    telemetry::{KernelEvents, Telemetry},
    tls,
};

/// A pod whose connections are captured, and wait in the proxy's listeners to be served.
///
/// Everything that takes privileges has been done, and nothing that takes a thread.
pub struct Captured {
    config: Config,
    /// Where the settings came from.
    source: Source,
    /// What the programs decide by.
    rules: RuleMaps,
    /// What is attached.
    datapath: Datapath,
    /// The proxy's ends of the connections.
    listeners: Listeners,
    /// The admin endpoint's, bound.
    admin: OwnListener,
    /// For messages.
    cgroup: String,
}

impl Captured {
    /// Captures the pod: the processes of `cgroup`, in the current network namespace.
    ///
    /// Everything that can be refused is refused before anything is attached.
    pub fn new(config: Config, source: Source, cgroup: &Cgroup) -> anyhow::Result<Self> {
        config.identity.check()?;
        config.trust_files.check()?;
        pod::ensure_bpffs(&config.bpffs)?;
        if let Err(error) = pod::raise_descriptor_limit() {
            tracing::warn!(
                "cannot raise the limit of open files: {error}; each connection takes two"
            );
        }

        let pins = Pins::create(&config.bpffs, cgroup)?;
        let mut datapath = Datapath::load(cgroup, pins)?;
        let mut rules = datapath.rules()?;
        rules.apply(&Rules {
            policy: &config.policy,
            own_addrs: &pod::own_addresses(),
        })?;
        let sockets = datapath.sockets();
        let admin = OwnListener::bind(&sockets, config.admin)?;
        if !config.admin.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "the admin endpoint on {} can be reached from the network and asks for no password; set --admin to a loopback address, unless a network policy guards the port",
                config.admin
            );
        }

        datapath.follow(cgroup)?;
        let listeners = Listeners::open(&sockets)?;
        let netns = bpf::own_netns().context("cannot open the pod's network namespace")?;
        datapath.steer(cgroup, netns.as_fd(), &listeners)?;
        Ok(Self {
            config,
            source,
            rules,
            datapath,
            listeners,
            admin,
            cgroup: cgroup.to_string(),
        })
    }

    /// What serving the pod goes on to need of the machine.
    pub fn sandbox(&self, cgroup: &Cgroup) -> Sandbox {
        let (mut files, directories) = match &self.config.identity {
            Origin::Files(files) => (files.paths().map(Clone::clone).into(), Vec::new()),
            Origin::DevCa { dir, .. } => (Vec::new(), vec![dir.clone()]),
            // A socket is connected to, not opened.
            Origin::WorkloadApi(_) => (Vec::new(), Vec::new()),
        };
        files.extend(self.config.trust_files.paths().map(ToOwned::to_owned));
        files.extend(self.source.path().map(ToOwned::to_owned));
        Sandbox {
            admin_port: self.config.admin.port(),
            cgroup: cgroup.path().to_owned(),
            directories,
            files,
            pins: self.datapath.pins().to_owned(),
        }
    }

    /// Begins to serve the connections. Call it inside a runtime whose threads are all in the
    /// pod's network namespace.
    pub fn serve(self) -> anyhow::Result<Daemon> {
        let Self {
            config,
            source,
            rules,
            mut datapath,
            listeners,
            admin,
            cgroup,
        } = self;
        bpf::forward_logs(&mut datapath);
        let events = datapath.events()?;
        let (access_log, flush) = logging::access_log(config.access_log);
        let telemetry = Telemetry::new(access_log)?;
        telemetry.watch_kernel(KernelEvents::new(move || {
            events.counts().map_err(|error| error.to_string())
        })?)?;

        let drain = Drain::default();
        let identity = tls::keep(config.identity, config.trust_files, telemetry.clone());
        let (policy_sender, policy) = watch::channel(Arc::new(config.policy));
        let proxy = Arc::new(Proxy {
            kernel: datapath.sockets(),
            identity: identity.clone(),
            policy,
            telemetry,
            establishing: Establishing::new(config.limits.handshakes),
            limits: config.limits,
        });
        let by_direction = [
            (Direction::Inbound, listeners.inbound),
            (Direction::Outbound, listeners.outbound),
        ];
        for (direction, listeners) in by_direction {
            for listener in listeners {
                let listener = TcpListener::from_std(listener)?;
                tokio::spawn(Arc::clone(&proxy).serve(direction, listener, drain.clone()));
            }
        }
        let telemetry = proxy.telemetry.clone();
        let reload = Reload::new(source, config.settings, policy_sender, rules, telemetry);
        tokio::spawn(reload.keep());
        // Last, so that nobody is told of readiness before the pod is captured.
        let admin = TcpListener::from_std(admin.listen()?)?;
        let admin_address = admin.local_addr()?;
        let telemetry = proxy.telemetry.clone();
        let admin = tokio::spawn(admin::serve(admin, telemetry, identity, drain.clone()));
        tracing::info!(admin = %admin_address, "captured {cgroup}");
        Ok(Daemon {
            datapath,
            drain,
            admin,
            flush,
        })
    }
}

/// A pod whose connections are captured and served.
pub struct Daemon {
    /// What is attached, until the end.
    datapath: Datapath,
    /// Ends the proxy.
    drain: Drain,
    /// Serves the admin endpoint until the drain is over.
    admin: tokio::task::JoinHandle<()>,
    /// Writes the last lines of the access log.
    flush: Option<logging::Flush>,
}

impl Daemon {
    /// Stops taking connections, lets those that are open end until `grace` is over, and detaches.
    ///
    /// New connections are refused while it lasts: nothing travels in plaintext that should not.
    pub async fn stop(self, grace: std::time::Duration) -> anyhow::Result<()> {
        self.drain.run(grace).await;
        self.admin.abort();
        self.datapath.detach()?;
        drop(self.flush);
        Ok(())
    }
}
