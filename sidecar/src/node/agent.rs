//! The agent: keeps a lane for each pod of the node that asks for one.
//!
//! It looks at what the API says, at the cgroup tree and at its lanes, and does what is missing; again
//! whenever one of them changes. What it missed it sees at the next look.

mod hear;
mod start;
mod stop;
mod sweep;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

pub use self::stop::{AFTERWARDS, HAND_OVER};
use super::{
    lane::{Lane, News, Order},
    process,
    registry::{Pods, State},
    settings,
    slot::{POLL, Refused, Slot},
    term::Term,
    threads,
    tree::Tree,
    watch::TreeWatch,
};
use crate::{
    config::{Config, Settings, Source},
    identity::Accounts,
    kubernetes::{Enrolment, KnownPods, LABEL, PodFacts, PodUid},
    logging::Lines,
    naming::Directory,
};

/// How often it is looked for an agent that has begun later.
const SUCCESSION: Duration = Duration::from_millis(250);
/// How long a pod that the API has forgotten may still run before it is set free. One that was removed
/// by force is about to be killed; one that merely asks to be captured no more is not.
const LINGER: Duration = Duration::from_secs(10);

/// What an agent is made of.
pub struct Parts {
    /// Its own settings, which are those of its pods where these say nothing.
    pub config: Config,
    /// Where they came from.
    pub source: Source,
    /// The name of the node.
    pub node: String,
    /// The root of the host's cgroup tree.
    pub root: PathBuf,
    /// The agent's own cgroup in it.
    pub own: PathBuf,
    /// The identities of service accounts.
    pub accounts: Accounts,
    /// Who is behind addresses.
    pub directory: Directory,
    /// Where lines of access logs go.
    pub lines: Lines,
    /// Where spans go.
    pub collector: Option<SocketAddr>,
    /// What shows the pods.
    pub pods: Pods,
}

/// Captures and serves the pods of a node.
pub struct Agent {
    parts: Parts,
    /// The settings of the agent as of now.
    settings: Settings,
    /// The network namespaces in which no pod of its own is.
    hosts: Vec<u64>,
    slots: BTreeMap<PodUid, Slot>,
    /// Lanes that finish what is open while another one serves their pod, by number.
    leaving: BTreeMap<u64, Lane>,
    /// The number of the next lane.
    next: u64,
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
    /// When it was last looked for what other agents have left.
    swept: Option<Instant>,
    /// When the API first told which pods there are.
    known: Option<Instant>,
    term: Term,
    /// Tells whether another agent has begun after us.
    succeeded: watch::Sender<bool>,
}

impl Agent {
    /// Prepares; captures nothing yet. Removes cgroups that an agent that was killed has left.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        threads::sweep(&parts.own);
        let (tell, news) = mpsc::unbounded_channel();
        Ok(Self {
            settings: parts.config.settings.clone(),
            hosts: process::namespaces_of_the_host()
                .context("cannot tell the agent's network namespace; mount /proc")?,
            slots: BTreeMap::new(),
            leaving: BTreeMap::new(),
            next: 1,
            news,
            tell,
            swept: None,
            known: None,
            term: Term::begin(&parts.config.bpffs).with_context(|| {
                let bpffs = parts.config.bpffs.display();
                format!("cannot tell other agents by {bpffs} of this one; check that it is a BPF file system and writable")
            })?,
            succeeded: watch::Sender::new(false),
            parts,
        })
    }

    /// Tells whether another agent has begun after us, which is to have the pods and the address of the
    /// admin endpoint.
    pub fn succeeded(&self) -> watch::Receiver<bool> {
        self.succeeded.subscribe()
    }

    /// Serves pods until told to stop; then open connections may go on for a while, and the pods stay
    /// closed for the next agent.
    ///
    /// Settings of the agent's own that are told anew hold for its pods from then on.
    pub async fn run(
        mut self,
        mut known: watch::Receiver<KnownPods>,
        mut settings: watch::Receiver<Settings>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut watch = TreeWatch::new(&self.parts.root);
        let mut succession = tokio::time::interval(SUCCESSION);
        succession.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wake = Duration::ZERO;
        let mut is_due = true;
        loop {
            if std::mem::replace(&mut is_due, true) {
                let now = known.borrow_and_update().clone();
                wake = self.look(now.as_deref(), &mut watch);
            }
            tokio::select! {
                () = &mut stop => break,
                () = changed(&mut known) => {}
                () = changed(&mut settings) => {
                    self.settings = settings.borrow_and_update().clone();
                }
                Some(news) = self.news.recv() => self.hear_all(news),
                () = watch.changed() => {}
                () = tokio::time::sleep(wake) => {}
                _ = succession.tick() => {
                    self.look_for_successor();
                    // It is no reason to look, and shortens the sleep by little.
                    wake = wake.saturating_sub(SUCCESSION);
                    is_due = false;
                }
            }
        }
        self.stop().await;
    }

    /// Looks at everything, does what is missing, and tells when to look again at the latest.
    fn look(
        &mut self,
        known: Option<&BTreeMap<PodUid, PodFacts>>,
        watch: &mut TreeWatch,
    ) -> Duration {
        let tree = match Tree::read(&self.parts.root) {
            Ok(tree) => tree,
            Err(error) => {
                tracing::error!(
                    "cannot read the cgroup tree below {}: {error}; pods stay as they are until it can be read",
                    self.parts.root.display()
                );
                return POLL / 5;
            }
        };
        watch.follow(&tree);
        let Some(known) = known else {
            return POLL;
        };
        for facts in known.values() {
            if enrolment(facts) == Enrolment::Node && !facts.ended {
                self.want(facts, &tree);
            }
        }
        self.parts.pods.known();
        self.known.get_or_insert_with(Instant::now);
        let unwanted: Vec<_> = self
            .slots
            .keys()
            .filter(|uid| {
                let facts = known.get(*uid);
                facts.is_none_or(|facts| enrolment(facts) != Enrolment::Node || facts.ended)
            })
            .cloned()
            .collect();
        for uid in unwanted {
            self.let_go(&uid, known.get(&uid), &tree);
        }
        if self.swept.is_none_or(|swept| swept.elapsed() >= POLL) {
            self.swept = Some(Instant::now());
            self.sweep(known, &tree);
        }
        self.next_look()
    }

    fn next_look(&self) -> Duration {
        let soonest = self.slots.values().map(Slot::next_look).min();
        soonest.unwrap_or(POLL).min(POLL)
    }

    /// Has a pod captured.
    fn want(&mut self, facts: &PodFacts, tree: &Tree) {
        let uid = &facts.uid;
        let mut slot = match self.slots.remove(uid) {
            Some(slot) => slot,
            None => Slot::new(Arc::new(facts.clone())),
        };
        slot.absent = None;
        if *slot.facts != *facts {
            slot.facts = Arc::new(facts.clone());
        }
        if facts.host_network {
            self.set(&mut slot, State::Skipped(HOST_NETWORK.to_owned()));
        } else if facts.is_mirror {
            self.set(&mut slot, State::Skipped(STATIC_POD.to_owned()));
        } else {
            match tree.pods.get(uid) {
                Some(cgroup) => self.want_in(&mut slot, cgroup),
                None if slot.running.is_some() => self.release(&mut slot),
                None => {
                    let why = "its cgroup is not there yet".to_owned();
                    self.set(&mut slot, State::Waiting(why));
                }
            }
        }
        self.slots.insert(uid.clone(), slot);
    }

    fn want_in(&mut self, slot: &mut Slot, cgroup: &Path) {
        let settings = self.settings_of(&slot.facts).map_err(|error| Refused {
            why: error.to_string(),
        });
        if let Some(running) = &mut slot.running {
            if running.order != Order::Serve {
                return;
            }
            // What cannot be told now is told at a later look.
            if running.checked.elapsed() < POLL || running.netns.is_of(cgroup).unwrap_or(true) {
                if running.checked.elapsed() >= POLL {
                    running.checked = Instant::now();
                }
                Self::settle(slot, &settings);
                return;
            }
            tracing::info!("{} has a new network namespace", slot.facts);
            if let Some(running) = slot.running.take() {
                self.leaving.insert(running.lane.number, running.lane);
            }
        }
        if slot.retry.is_some_and(|retry| retry > Instant::now()) {
            return;
        }
        if let (Err(refused), Some(before), Some(closed)) = (&settings, &slot.refused, &slot.closed)
            && refused == before
            && closed.is_of(cgroup).unwrap_or(true)
        {
            return;
        }
        self.start(slot, cgroup, settings);
    }

    fn settings_of(&self, facts: &PodFacts) -> anyhow::Result<Box<Config>> {
        let settings = settings::of_pod(facts, &self.settings)?;
        Ok(Box::new(self.parts.source.config(settings)?))
    }

    /// Tells a lane by which settings to go on.
    fn settle(slot: &mut Slot, settings: &Result<Box<Config>, Refused>) {
        let Some(running) = &slot.running else {
            return;
        };
        match settings {
            Ok(config) => {
                slot.refused = None;
                running.lane.settle(&config.settings);
            }
            Err(refused) if slot.refused.as_ref() != Some(refused) => {
                tracing::error!(
                    outcome = "refused",
                    "{}: {}; kept its settings as they were",
                    slot.facts,
                    refused.why
                );
                slot.refused = Some(refused.clone());
            }
            Err(_) => {}
        }
    }

    /// A pod is not to be captured, or not any more.
    fn let_go(&mut self, uid: &PodUid, facts: Option<&PodFacts>, tree: &Tree) {
        let Some(mut slot) = self.slots.remove(uid) else {
            return;
        };
        let is_disenrolled = facts.is_some_and(|facts| enrolment(facts) != Enrolment::Node);
        let has_gone = !tree.pods.contains_key(uid);
        let has_lingered = match facts {
            // It has ended, and its cgroup goes soon.
            Some(_) => false,
            None => slot.absent.get_or_insert_with(Instant::now).elapsed() >= LINGER,
        };
        if slot.running.is_some() {
            if is_disenrolled || has_gone || has_lingered {
                self.release(&mut slot);
            }
            self.slots.insert(uid.clone(), slot);
        } else {
            self.parts.pods.remove(uid);
            // What is pinned, if anything is, goes with the next sweep.
            self.swept = None;
        }
    }

    fn release(&self, slot: &mut Slot) {
        slot.order(Order::Release);
        self.set(slot, State::Leaving);
    }

    /// Notes how far a pod has got, and says it once.
    fn set(&self, slot: &mut Slot, state: State) {
        if slot.state != state {
            match &state {
                State::Captured => tracing::info!("captured {}", slot.facts),
                State::Skipped(why) => tracing::warn!("{} is not captured: {why}", slot.facts),
                _ => tracing::debug!("{} is {state}", slot.facts),
            }
            slot.state = state;
        }
        self.show(slot);
    }

    fn show(&self, slot: &Slot) {
        let running = slot.running.as_ref().filter(|running| running.is_captured);
        let served = running.and_then(|running| running.served.clone());
        self.parts.pods.put(&slot.facts, slot.state.clone(), served);
    }

    /// Has certainly no other agent begun after us? It may have taken over what we look at.
    fn is_last(&self) -> bool {
        matches!(self.term.has_successor(), Ok(false))
    }

    fn look_for_successor(&self) {
        // What cannot be told now is told later; until then it is as it was.
        if let Ok(has_successor) = self.term.has_successor() {
            self.succeeded.send_if_modified(|before| {
                std::mem::replace(before, has_successor) != has_successor
            });
        }
    }
}

/// Why static pods are skipped.
const STATIC_POD: &str =
    "it is a static pod, of whose cgroup the API does not tell the name; have a DaemonSet make it";
/// Why a pod is skipped.
const HOST_NETWORK: &str = "it shares the node's network, where all processes would be captured";

fn enrolment(facts: &PodFacts) -> Enrolment {
    Enrolment::of(facts.labels.get(LABEL).map(String::as_str))
}

/// Waits for a change. Where nobody will ever tell of one, for ever.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
