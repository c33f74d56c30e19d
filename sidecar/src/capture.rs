//! One pod's connections: taken, and then served. What the daemon of a pod and the agent of a node
//! have in common.

use std::{io, net::IpAddr, sync::Arc};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    bpf::{
        self, Datapath, Events, Listeners, Ownership, RuleMaps, Rules, Sockets, Statistics, Turn,
    },
    pod,
    policy::{Direction, Policy},
    proxy::{Drain, Establishing, Limits, Proxy, Spares},
    reload::Tables,
    telemetry::{KernelEvents, Telemetry},
    tls::Tls,
};

/// A pod whose connections are taken, and wait in the proxy's listeners to be served.
///
/// Everything that takes privileges has been done, and nothing that takes a thread.
pub struct Capture {
    /// What is attached.
    datapath: Datapath,
    /// What the programs decide by.
    tables: SharedTables,
    /// The counters of what the programs decided.
    events: Events,
    /// What TCP measures on the proxy's sockets.
    statistics: Statistics,
    /// Tells whether that is still ours to read.
    ownership: Ownership,
    /// The proxy's ends of the connections.
    listeners: Listeners,
}

/// What serving the connections of a pod takes beside the pod.
pub struct Service {
    /// The identity that the proxy shows.
    pub identity: watch::Receiver<Option<Arc<Tls>>>,
    /// How long things may take.
    pub limits: Limits,
    /// What connections need.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// What connections report to.
    pub telemetry: Telemetry,
    /// Ends the proxy.
    pub drain: Drain,
}

impl Capture {
    /// Takes the connections of a pod of which nobody knows yet: processes of a cgroup, in the network namespace
    /// of this thread. Whoever serves them is replaced.
    pub fn new(mut datapath: Datapath, policy: &Policy) -> Result<Self, bpf::Error> {
        let mut rules = datapath.rules()?;
        let events = datapath.events()?;
        let statistics = datapath.statistics()?;
        datapath.follow()?;
        let listeners = Listeners::open(&datapath.sockets())?;
        // Not before nothing can be refused any more: another sidecar may serve by the same tables.
        let own_addrs = pod::own_addresses();
        if !listeners.take_ipv6()
            && let Some((_, address)) = own_addrs.iter().find(|(_, own)| is_routed_ipv6(*own))
        {
            tracing::warn!(
                "the pod has the address {address}, but ::1 is not on its loopback device: connections over IPv6 are refused in both directions; sysctl -w net.ipv6.conf.lo.disable_ipv6=0, and start again"
            );
        }
        let by = Rules {
            policy,
            own_addrs: &own_addrs,
        };
        rules.apply(&by)?;
        datapath.serve_by(&listeners)?;
        // Again, for what the other one may have written meanwhile. From now on it writes nothing.
        rules.apply(&by)?;
        Ok(Self {
            tables: SharedTables {
                tables: rules,
                ownership: datapath.ownership()?,
                turn: datapath.turn()?,
            },
            ownership: datapath.ownership()?,
            datapath,
            events,
            statistics,
            listeners,
        })
    }

    /// What is attached.
    pub const fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Begins to serve the connections. Call it inside a runtime whose threads are all in the
    /// pod's network namespace.
    pub fn serve(self, service: Service) -> anyhow::Result<Serving> {
        let Self {
            mut datapath,
            tables,
            events,
            statistics,
            ownership,
            listeners,
        } = self;
        let Service {
            identity,
            limits,
            policy,
            telemetry,
            drain,
        } = service;
        bpf::forward_logs(&mut datapath);
        telemetry.watch_kernel(KernelEvents::new(move || {
            events.counts().map_err(|error| error.to_string())
        })?)?;
        let proxy = Arc::new(Proxy {
            kernel: datapath.sockets(),
            identity,
            policy,
            directory: telemetry.directory(),
            telemetry: telemetry.clone(),
            establishing: Establishing::new(limits.handshakes),
            spares: Spares::new(limits.reuse),
            limits,
        });
        let acceptors = accept(listeners, &proxy, &drain)?;
        let leaving = drain.clone();
        tokio::spawn(async move {
            let spares = &proxy.spares;
            spares.close_idle(leaving.is_leaving()).await;
        });
        let closing = CancellationToken::new();
        let forgetting = telemetry.clone().forget_idle_parties();
        tokio::spawn(closing.clone().run_until_cancelled_owned(forgetting));
        let reading = statistics.read(ownership, move |statistics| telemetry.measured(statistics));
        tokio::spawn(closing.clone().run_until_cancelled_owned(reading));
        Ok(Serving {
            datapath,
            tables: Some(tables),
            acceptors: Acceptors(acceptors),
            closing,
            drain,
        })
    }
}

/// Would connections come from this address over IPv6 that could be carried?
fn is_routed_ipv6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if !address.is_unicast_link_local())
}

/// Accepts on all listeners.
fn accept(
    listeners: Listeners,
    proxy: &Arc<Proxy<Sockets>>,
    drain: &Drain,
) -> io::Result<JoinSet<()>> {
    let mut acceptors = JoinSet::new();
    let by_direction = [
        (Direction::Inbound, listeners.inbound),
        (Direction::Outbound, listeners.outbound),
    ];
    for (direction, listeners) in by_direction {
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            acceptors.spawn(Arc::clone(proxy).serve(direction, listener, drain.clone()));
        }
    }
    Ok(acceptors)
}

/// A pod whose connections are served.
pub struct Serving {
    /// What is attached, and who serves by it.
    pub datapath: Datapath,
    /// What the programs decide by, until somebody takes them to change them.
    tables: Option<SharedTables>,
    /// What accepts connections.
    pub acceptors: Acceptors,
    /// Ends what goes on beside: the reading of what TCP measures, or the wait for whoever reads it.
    pub closing: CancellationToken,
    /// Ends the proxy.
    pub drain: Drain,
}

impl Serving {
    /// The tables by which the kernel decides, for the one who changes them.
    pub fn tables(&mut self) -> Option<SharedTables> {
        self.tables.take()
    }
}

/// The tasks that accept the connections of a pod, until they are dropped.
pub struct Acceptors(JoinSet<()>);

impl Acceptors {
    /// Waits until a task that accepts connections has failed, which only a mistake of ours makes it
    /// do. It never returns while the proxy is well.
    pub async fn failed(&mut self) -> tokio::task::JoinError {
        loop {
            match self.0.join_next().await {
                Some(Err(error)) => return error,
                // It has been told to end.
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// The tables that the kernel decides by, for as long as they are ours to change.
pub struct SharedTables {
    tables: RuleMaps,
    /// Tells whether another sidecar serves by them.
    ownership: Ownership,
    /// Keeps others from beginning to meanwhile.
    turn: Turn,
}

impl SharedTables {
    /// Changes them, unless another sidecar serves by them.
    fn change(
        &mut self,
        policy: &Policy,
        how: impl FnOnce(&mut RuleMaps, &Rules<'_>) -> Result<(), bpf::Error>,
    ) -> Result<(), bpf::Error> {
        if self.ownership.loss()?.is_some() {
            return Ok(());
        }
        let own_addrs = pod::own_addresses();
        let rules = Rules {
            policy,
            own_addrs: &own_addrs,
        };
        how(&mut self.tables, &rules)
    }
}

impl Tables for SharedTables {
    fn try_begin(&mut self) -> Result<bool, bpf::Error> {
        self.turn.try_take()
    }

    fn tighten(&mut self, policy: &Policy) -> Result<(), bpf::Error> {
        self.change(policy, RuleMaps::tighten)
    }

    fn loosen(&mut self, policy: &Policy) -> Result<(), bpf::Error> {
        self.change(policy, RuleMaps::loosen)
    }

    fn end(&mut self) {
        self.turn.give_back();
    }
}
