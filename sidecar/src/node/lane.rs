//! A lane: the thread that captures and serves one pod.
//!
//! It is in the pod's network namespace, so that its sockets are the pod's; and in a cgroup of its
//! own, so that the kernel side tells them from those of other pods.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};

use super::threads::ThreadCgroup;
use crate::{
    bpf::{Datapath, Loss, Pins, Place, Rules, Size, agents::Holder},
    capture::{Acceptors, Capture, Service, Serving},
    config::{Config, Settings, Source},
    kubernetes::PodUid,
    pod::{self, Cgroup},
    policy::Policy,
    proxy::Drain,
    reload::Reload,
    sandbox::Sandbox,
    telemetry::Telemetry,
    tls::Tls,
};

/// What a thread of ours takes for its stack, most of which is never touched.
const STACK: usize = 1 << 20;

/// What a lane is told to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// To serve.
    Serve,
    /// To end, and to set the pod free.
    Release,
    /// To end, and to leave the pod closed for the next agent.
    Stop,
}

/// What a lane tells, with the pod that it is of and its own number.
pub(super) struct News {
    pub(super) uid: PodUid,
    pub(super) number: u64,
    pub(super) what: What,
}

/// What has become of a lane.
#[derive(Debug)]
pub(super) enum What {
    /// It serves the pod.
    Captured,
    /// Another sidecar serves the pod; what is open here goes on.
    Replaced,
    /// Its thread ends.
    Ended(Ending),
}

/// How a lane has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// It did what it was told, or has finished after it was replaced.
    Done,
    /// The pod is closed, as it was to be.
    Closed,
    /// The pod has a sidecar of its own.
    OwnSidecar,
    /// Another agent serves the pod.
    Elsewhere,
    /// What was pinned for the pod has been removed by somebody else.
    Removed,
    /// It has failed: why.
    Failed(String),
}

/// A lane that has been started.
pub(super) struct Lane {
    pub(super) number: u64,
    order: watch::Sender<Order>,
    settings: watch::Sender<Settings>,
    thread: JoinHandle<()>,
    /// Goes after the thread.
    cgroup: ThreadCgroup,
}

/// What a lane is made of.
pub(super) struct Start {
    pub(super) uid: PodUid,
    pub(super) number: u64,
    /// The pod's.
    pub(super) cgroup: PathBuf,
    /// The pod's.
    pub(super) netns: File,
    /// The lane's.
    pub(super) beside: ThreadCgroup,
    pub(super) bpffs: PathBuf,
    /// May it take the pod from an agent that serves it?
    pub(super) takes_over: bool,
    pub(super) purpose: Purpose,
    pub(super) news: mpsc::UnboundedSender<News>,
}

/// What a lane is for.
pub(super) enum Purpose {
    /// To close the pod by a policy, and to serve nobody.
    Close(Box<Policy>),
    /// To serve it.
    Serve(Box<Wanted>),
}

/// How a pod is to be served.
pub(super) struct Wanted {
    pub(super) config: Config,
    pub(super) source: Source,
    pub(super) telemetry: Telemetry,
    pub(super) identity: watch::Receiver<Option<Arc<Tls>>>,
    pub(super) drain: Drain,
}

impl Lane {
    /// Starts the thread.
    pub(super) fn start(start: Start, settings: Settings) -> anyhow::Result<Self> {
        let Start {
            uid,
            number,
            cgroup,
            netns,
            beside,
            bpffs,
            takes_over,
            purpose,
            news,
        } = start;
        let (order, orders) = watch::channel(Order::Serve);
        let (settings, told) = watch::channel(settings);
        let own = beside.cgroup().try_clone()?;
        let run = move |tell: &dyn Fn(What)| {
            let track = Track {
                cgroup: Cgroup::open(&cgroup)?,
                netns,
                beside: own,
                bpffs,
            };
            track.run(takes_over, purpose, orders, told, tell)
        };
        let tell = move |what| {
            let uid = uid.clone();
            // Nobody listens once the agent has ended.
            let _ = news.send(News { uid, number, what });
        };
        let thread = spawn(run, tell).context("cannot start a thread for the pod")?;
        Ok(Self {
            number,
            order,
            settings,
            thread,
            cgroup: beside,
        })
    }

    /// Tells it what to do.
    pub(super) fn order(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let is_new = *current != order;
            *current = order;
            is_new
        });
    }

    /// Tells it by which settings.
    pub(super) fn settle(&self, settings: &Settings) {
        self.settings.send_if_modified(|current| {
            let is_new = current != settings;
            if is_new {
                current.clone_from(settings);
            }
            is_new
        });
    }

    /// Waits for the end of a thread that has told of it, and removes its cgroup. Blocks.
    pub(super) fn join(self) {
        // What it panicked of has been told.
        let _ = self.thread.join();
        drop(self.cgroup);
    }
}

/// Starts a thread that tells of its end whatever happens in it.
fn spawn(
    run: impl FnOnce(&dyn Fn(What)) -> anyhow::Result<Ending> + Send + 'static,
    tell: impl Fn(What) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("lane".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let ending = match catch_unwind(AssertUnwindSafe(|| run(&tell))) {
                Ok(Ok(ending)) => ending,
                Ok(Err(error)) => Ending::Failed(format!("{error:#}")),
                Err(_) => Ending::Failed("its thread panicked".to_owned()),
            };
            tell(What::Ended(ending));
        })
}

/// Where a lane runs.
struct Track {
    cgroup: Cgroup,
    netns: File,
    beside: Cgroup,
    bpffs: PathBuf,
}

impl Track {
    fn run(
        self,
        takes_over: bool,
        purpose: Purpose,
        orders: watch::Receiver<Order>,
        settings: watch::Receiver<Settings>,
        tell: &dyn Fn(What),
    ) -> anyhow::Result<Ending> {
        join_threads(self.beside.path())?;
        pod::enter_open_netns(&self.netns)
            .context("cannot enter the pod's network namespace, which takes CAP_SYS_ADMIN")?;
        let pins = Pins::of(&self.bpffs, &self.cgroup);
        match Holder::of(&pins)? {
            Holder::Sidecar => return Ok(Ending::OwnSidecar),
            Holder::Agent { is_served: true } if !takes_over => return Ok(Ending::Elsewhere),
            Holder::Agent { .. } | Holder::Nobody => {}
        }
        let place = Place::new(&self.cgroup).context("cannot open the pod's network namespace")?;
        let mut datapath = Datapath::load(place, pins, Size::OfMany)?;
        datapath.keep_for_agent()?;
        match purpose {
            Purpose::Close(policy) => {
                close(datapath, &policy)?;
                Ok(Ending::Closed)
            }
            Purpose::Serve(wanted) => {
                datapath.follow_beside(&self.beside)?;
                let capture = Capture::new(datapath, &wanted.config.policy)?;
                // Nothing that follows takes a privilege. What it starts inherits this.
                let sandbox = Sandbox {
                    pins: capture.datapath().removable_pins().map(Path::to_owned),
                    ..Sandbox::of(&self.cgroup)
                };
                sandbox.confine_thread()?;
                let runtime = runtime()?;
                let ending = runtime.block_on(serve(capture, *wanted, orders, settings, tell));
                // Whatever still blocks is none of the pod's connections.
                runtime.shutdown_background();
                ending
            }
        }
    }
}

/// Moves the calling thread into a threaded cgroup.
fn join_threads(cgroup: &Path) -> anyhow::Result<()> {
    std::fs::write(cgroup.join("cgroup.threads"), "0")
        .with_context(|| format!("cannot move a thread to {}", cgroup.display()))
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_stack_size(STACK)
        .build()
        .context("cannot start a runtime for the pod")
}

/// Refuses every connection of a pod, whoever served it.
fn close(mut datapath: Datapath, policy: &Policy) -> anyhow::Result<()> {
    let own_addrs = pod::own_addresses();
    datapath.rules()?.apply(&Rules {
        policy,
        own_addrs: &own_addrs,
    })?;
    datapath.follow()?;
    Ok(datapath.close()?)
}

/// Serves the pod until told otherwise.
async fn serve(
    capture: Capture,
    wanted: Wanted,
    mut orders: watch::Receiver<Order>,
    settings: watch::Receiver<Settings>,
    tell: &dyn Fn(What),
) -> anyhow::Result<Ending> {
    let Wanted {
        config,
        source,
        telemetry,
        identity,
        drain,
    } = wanted;
    let grace = config.drain_timeout;
    let (policy_sender, policy) = watch::channel(Arc::new(config.policy));
    let mut serving = capture.serve(Service {
        identity,
        limits: config.limits,
        policy,
        telemetry: telemetry.clone(),
        drain: drain.clone(),
    })?;
    if let Some(tables) = serving.tables() {
        let reload = Reload::new(source, config.settings, policy_sender, tables, telemetry);
        tokio::spawn(reload.follow(settings));
    }
    serving.datapath.commit();
    tell(What::Captured);
    let Serving {
        datapath,
        mut acceptors,
        closing,
        ..
    } = serving;
    let ending = tokio::select! {
        order = ordered(&mut orders) => end(order, datapath, &drain, grace).await,
        loss = datapath.lost() => {
            closing.cancel();
            if loss == Loss::Replaced {
                tell(What::Replaced);
            }
            finish(&mut acceptors, &drain, &mut orders, grace).await;
            Ok(match loss {
                Loss::Replaced => Ending::Done,
                Loss::Removed => Ending::Removed,
            })
        }
        error = acceptors.failed() => {
            // Refused from here on: the listeners go with us.
            Err(anyhow::anyhow!("a task that accepts connections has failed: {error}"))
        }
    };
    closing.cancel();
    ending
}

/// Waits until the lane is told to end.
async fn ordered(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.wait_for(|order| *order != Order::Serve).await {
        Ok(order) => *order,
        // The agent has ended.
        Err(_) => Order::Stop,
    }
}

/// Takes no more connections, and lets those that are open end for a while.
async fn end(
    order: Order,
    datapath: Datapath,
    drain: &Drain,
    grace: Duration,
) -> anyhow::Result<Ending> {
    drain.run(grace).await;
    if order == Order::Release {
        datapath.leave()?;
    }
    Ok(Ending::Done)
}

/// Finishes what is open, however long that lasts, and once told to end for a while only.
async fn finish(
    acceptors: &mut Acceptors,
    drain: &Drain,
    orders: &mut watch::Receiver<Order>,
    grace: Duration,
) {
    let told = async {
        ordered(orders).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = drain.hand_over() => {}
        () = told => drain.run(Duration::ZERO).await,
        _ = acceptors.failed() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn ending_of(run: impl FnOnce() -> anyhow::Result<Ending> + Send + 'static) -> Ending {
        let (sender, receiver) = channel();
        let tell = move |what| sender.send(what).expect("we listen");
        let thread = spawn(move |_| run(), tell).expect("a thread");
        let What::Ended(ending) = receiver.recv().expect("it tells of its end") else {
            panic!("nothing else was to be told");
        };
        thread.join().expect("it has caught what there was");
        ending
    }

    #[test]
    fn a_lane_that_panics_tells_of_it_and_takes_nobody_with_it() {
        let ending = ending_of(|| panic!("on purpose"));
        assert_eq!(ending, Ending::Failed("its thread panicked".to_owned()));
    }

    #[test]
    fn a_lane_that_fails_tells_why() {
        let ending = ending_of(|| anyhow::bail!("no namespace"));
        assert_eq!(ending, Ending::Failed("no namespace".to_owned()));
        assert_eq!(ending_of(|| Ok(Ending::Done)), Ending::Done);
    }
}
