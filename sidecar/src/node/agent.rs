//! The agent: keeps a lane for each pod of the node that asks for one.
//!
//! It looks at what the API says, at the cgroup tree and at its lanes, and does what is missing; again
//! whenever one of them changes. What it missed it sees at the next look.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    lane::{Ending, Lane, News, Order, Purpose, Start, Wanted, What},
    process::{self, Namespace},
    registry::{Pods, Served, State},
    settings,
    slot::{POLL, Refused, Running, Slot},
    term::Term,
    threads::{self, ThreadCgroup},
    tree::Tree,
    watch::TreeWatch,
};
use crate::{
    bpf::agents,
    config::{Config, Settings, Source},
    identity::{Accounts, Origin},
    kubernetes::{Enrolment, KnownPods, LABEL, PodFacts, PodUid},
    logging::Lines,
    naming::Directory,
    policy::Mode,
    proxy::Drain,
    telemetry::{self, PodLabels, Telemetry, Traces},
    tls,
};

/// How often it is looked whether another agent still serves a pod.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// How often it is looked whether a pod still has a sidecar of its own.
const OWN_SIDECAR: Duration = Duration::from_secs(30);
/// How many lanes begin at once: each has the kernel verify programs meanwhile.
const BEGINNING: usize = 4;
/// How often it is looked for an agent that has begun later.
const SUCCESSION: Duration = Duration::from_millis(250);
/// How long one that is told to stop waits for an agent that has begun later to take the pods over.
pub const HAND_OVER: Duration = Duration::from_secs(20);
/// How long a pod that the API has forgotten may still run before it is set free. One that was removed
/// by force is about to be killed; one that merely asks to be captured no more is not.
const LINGER: Duration = Duration::from_secs(10);
/// How long after the drain what is left of a lane may take.
pub const AFTERWARDS: Duration = Duration::from_secs(3);

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

    fn start(&mut self, slot: &mut Slot, cgroup: &Path, settings: Result<Box<Config>, Refused>) {
        let beginning = self
            .slots
            .values()
            .filter(|slot| slot.is_starting())
            .count();
        if beginning >= BEGINNING {
            // Others are captured first; the next look comes when one of them is.
            if !matches!(slot.state, State::Failed(_)) {
                self.set(slot, State::Beginning);
            }
            return;
        }
        let netns = match Namespace::of(cgroup) {
            Ok(Some(netns)) => netns,
            Ok(None) => {
                slot.expected.get_or_insert_with(Instant::now);
                self.set(slot, State::Waiting(NO_PROCESS.to_owned()));
                return;
            }
            Err(error) => {
                let why = format!(
                    "its network namespace cannot be opened: {error}; the agent takes CAP_SYS_PTRACE, and the host's process namespace"
                );
                self.failed(slot, why);
                return;
            }
        };
        if self.hosts.contains(&netns.inode) {
            // A runtime's first process is in the pod's cgroup before it is in its namespace.
            slot.expected.get_or_insert_with(Instant::now);
            self.set(slot, State::Skipped(HOST_NETWORK.to_owned()));
            return;
        }
        slot.expected = None;
        if let Err(error) = self.start_in(slot, cgroup, netns, settings) {
            self.failed(slot, format!("{error:#}"));
        }
    }

    fn start_in(
        &mut self,
        slot: &mut Slot,
        cgroup: &Path,
        netns: Namespace,
        settings: Result<Box<Config>, Refused>,
    ) -> anyhow::Result<()> {
        let number = self.next;
        self.next += 1;
        let in_force = settings.as_ref().ok().map(|config| config.settings.clone());
        let (purpose, served) = match settings {
            Ok(config) => {
                slot.refused = None;
                let origin = self.parts.accounts.origin(&slot.facts.service_account)?;
                let (wanted, served) = self.wanted(&slot.facts, &config, origin)?;
                (Purpose::Serve(Box::new(wanted)), Some(served))
            }
            Err(refused) => {
                tracing::error!(
                    outcome = "refused",
                    "{}: {}; its connections are refused until that is mended",
                    slot.facts,
                    refused.why
                );
                slot.refused = Some(refused);
                (Purpose::Close(Box::new(self.strict()?)), None)
            }
        };
        let start = Start {
            uid: slot.facts.uid.clone(),
            number,
            cgroup: cgroup.to_owned(),
            netns: netns.file.try_clone()?,
            beside: ThreadCgroup::new(&self.parts.own, number)?,
            bpffs: self.parts.config.bpffs.clone(),
            takes_over: !slot.is_elsewhere && self.is_last(),
            purpose,
            news: self.tell.clone(),
        };
        let lane = Lane::start(start, in_force.unwrap_or_default())?;
        slot.retry = None;
        slot.closed = None;
        // One that failed has yet to show that it does not do so again.
        if !slot.is_elsewhere && !matches!(slot.state, State::Failed(_)) {
            self.set(slot, State::Beginning);
        }
        slot.running = Some(Running {
            lane,
            netns,
            served,
            order: Order::Serve,
            is_captured: false,
            checked: Instant::now(),
        });
        Ok(())
    }

    /// How a pod is to be served, and what shows that.
    fn wanted(
        &self,
        facts: &PodFacts,
        config: &Config,
        origin: Origin,
    ) -> anyhow::Result<(Wanted, Served)> {
        let drain = Drain::default();
        let (traces, export) = self.parts.collector.map(Traces::to).unzip();
        let telemetry = Telemetry::new(telemetry::Options {
            access_log: self.parts.lines.log(config.access_log_choice.clone()),
            directory: self.parts.directory.clone(),
            labels: PodLabels {
                namespace: facts.namespace().into(),
                node: self.parts.node.as_str().into(),
                pod: facts.name.as_str().into(),
                service_account: facts.service_account.name.as_str().into(),
                workload: facts.workload.to_string().into(),
            },
            observing: config.observing.clone(),
            series: config.series,
            traces: traces.unwrap_or_default(),
        })?;
        // It goes on without us, and ends with the drain.
        let _exporting = export.map(|export| export.start(drain.clone()));
        let identity = tls::keep(origin, config.trust_files.clone(), telemetry.clone());
        let served = Served {
            telemetry: telemetry.clone(),
            identity: identity.clone(),
            drain: drain.clone(),
        };
        let wanted = Wanted {
            config: config.clone(),
            source: self.parts.source.clone(),
            telemetry,
            identity,
            drain,
        };
        Ok((wanted, served))
    }

    /// What a pod is closed by of which nobody knows how strict it is to be.
    fn strict(&self) -> anyhow::Result<crate::policy::Policy> {
        let strict = Settings {
            inbound: Some(Mode::Strict),
            outbound: Some(Mode::Strict),
            ..Settings::default()
        };
        Ok(self.parts.source.config(strict)?.policy)
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

    /// Removes what agents have pinned for pods that have gone, or ask for none any more.
    ///
    /// The agent that began last sweeps, and only what nobody serves: what another one has captured
    /// may be news to us.
    fn sweep(&self, known: &BTreeMap<PodUid, PodFacts>, tree: &Tree) {
        if !self.is_last() {
            return;
        }
        let all = match agents::all(&self.parts.config.bpffs) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!("{error}");
                return;
            }
        };
        let by_id: BTreeMap<u64, &PodUid> = tree
            .pods
            .iter()
            .filter_map(|(uid, path)| Some((fs::metadata(path).ok()?.ino(), uid)))
            .collect();
        for pins in all {
            let uid = by_id.get(&pins.cgroup()).copied();
            if uid.is_some_and(|uid| self.slots.contains_key(uid)) {
                continue;
            }
            let is_disenrolled = uid
                .and_then(|uid| known.get(uid))
                .is_some_and(|facts| enrolment(facts) != Enrolment::Node);
            let is_forgotten = uid.is_some_and(|uid| !known.contains_key(uid))
                && self.known.is_some_and(|known| known.elapsed() >= LINGER);
            let has_gone = uid.is_none() && agents::is_of_the_past(&pins);
            if !has_gone && pins.are_served() != Some(false) {
                continue;
            }
            if is_disenrolled || is_forgotten || has_gone {
                match agents::remove(&pins) {
                    Ok(()) => tracing::info!(
                        "removed what was pinned at {} for a pod that has gone or does not ask for it any more",
                        pins.directory().display()
                    ),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
        }
    }

    /// Hears what lanes have told, all of it at once.
    fn hear_all(&mut self, first: News) {
        self.hear(first);
        while let Ok(news) = self.news.try_recv() {
            self.hear(news);
        }
    }

    fn hear(&mut self, news: News) {
        let News { uid, number, what } = news;
        if self.leaving.contains_key(&number) {
            // Another lane has its pod: nothing else that it tells is news.
            if let What::Ended(_) = what
                && let Some(lane) = self.leaving.remove(&number)
            {
                join(lane);
            }
            return;
        }
        let Some(mut slot) = self.slots.remove(&uid) else {
            return;
        };
        match what {
            What::Captured => self.captured(&mut slot),
            What::Replaced => {
                tracing::info!(
                    "another agent serves {} now: finishing what is open",
                    slot.facts
                );
                if let Some(running) = slot.running.take() {
                    if running.order != Order::Serve {
                        running.lane.order(running.order);
                    }
                    self.leaving.insert(number, running.lane);
                }
                self.elsewhere(&mut slot);
            }
            What::Ended(ending) => {
                let order = slot.running.as_ref().map(|running| running.order);
                if let Some(running) = slot.running.take() {
                    join(running.lane);
                    slot.closed = (ending == Ending::Closed).then_some(running.netns);
                }
                self.ended(&mut slot, ending, order);
            }
        }
        self.slots.insert(uid, slot);
    }

    fn captured(&self, slot: &mut Slot) {
        slot.backoff.worked();
        slot.is_elsewhere = false;
        if let Some(running) = &mut slot.running {
            running.is_captured = true;
            if running.order == Order::Serve {
                self.set(slot, State::Captured);
            }
        }
    }

    fn ended(&self, slot: &mut Slot, ending: Ending, order: Option<Order>) {
        match ending {
            Ending::Done => {
                if order == Some(Order::Release) {
                    tracing::info!("{} is not captured any more", slot.facts);
                }
                self.set(slot, State::Waiting("its lane has ended".to_owned()));
            }
            Ending::Closed => {
                // Nobody but whoever writes the annotations can help: the agent is as ready as it can be.
                let why = slot.refused.as_ref().map(|refused| refused.why.clone());
                self.set(slot, State::Skipped(why.unwrap_or_default()));
            }
            Ending::OwnSidecar => {
                slot.retry = Some(Instant::now() + OWN_SIDECAR);
                let why =
                    format!("it has a sidecar of its own; remove that, or the label {LABEL}: node");
                self.set(slot, State::Skipped(why));
            }
            Ending::Elsewhere => self.elsewhere(slot),
            Ending::Removed => {
                let why = "what was pinned for it has been removed by somebody else";
                self.failed(slot, why.to_owned());
            }
            Ending::Failed(why) => self.failed(slot, why),
        }
    }

    fn elsewhere(&self, slot: &mut Slot) {
        slot.is_elsewhere = true;
        slot.retry = Some(Instant::now() + ELSEWHERE);
        self.set(slot, State::Skipped("another agent serves it".to_owned()));
    }

    fn failed(&self, slot: &mut Slot, why: String) {
        let wait = slot.backoff.failed();
        slot.retry = Some(Instant::now() + wait);
        // Also where it has failed like that before: it is tried again, and that is to be seen.
        tracing::error!(
            "{} cannot be captured: {why}; trying again in {wait:.0?}, and if it was captured before, its connections are refused meanwhile",
            slot.facts
        );
        slot.state = State::Failed(why);
        self.show(slot);
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

    /// Waits for another agent that has begun to take the pods over, lest they are closed meanwhile.
    async fn hand_over(&mut self) {
        let until = Instant::now() + HAND_OVER;
        let serves = |agent: &Self| agent.slots.values().any(|slot| slot.running.is_some());
        while serves(self) && !self.is_last() && Instant::now() < until {
            // Nobody tells when the other one dies.
            if let Ok(Some(news)) = tokio::time::timeout(SUCCESSION, self.news.recv()).await {
                self.hear_all(news);
            }
        }
    }

    /// Ends all lanes, and leaves their pods closed.
    async fn stop(mut self) {
        self.hand_over().await;
        let grace = self.parts.config.drain_timeout;
        tracing::info!(
            "stopping: {} pods stay closed until the next agent; draining for at most {grace:?}",
            self.slots
                .values()
                .filter(|slot| slot.running.is_some())
                .count()
        );
        for slot in self.slots.values_mut() {
            slot.order(Order::Stop);
            if slot.running.is_some() {
                slot.state = State::Leaving;
            }
        }
        for lane in self.leaving.values() {
            lane.order(Order::Stop);
        }
        for slot in self.slots.values() {
            self.show(slot);
        }
        let ended = async {
            while !self.leaving.is_empty() || self.slots.values().any(|slot| slot.running.is_some())
            {
                let Some(news) = self.news.recv().await else {
                    return;
                };
                self.hear_all(news);
            }
        };
        // The longest that a pod may have for itself is not known here: it is bounded by whoever kills us.
        let _ = tokio::time::timeout(grace.max(Duration::from_mins(1)) + AFTERWARDS, ended).await;
        // Their threads are still in their cgroups, which the next agent removes.
        std::mem::forget((self.leaving, self.slots));
    }
}

/// Why a pod waits that is expected any moment.
const NO_PROCESS: &str = "no process of it runs yet";
/// Why static pods are skipped.
const STATIC_POD: &str =
    "it is a static pod, of whose cgroup the API does not tell the name; have a DaemonSet make it";
/// Why a pod is skipped.
const HOST_NETWORK: &str = "it shares the node's network, where all processes would be captured";

fn enrolment(facts: &PodFacts) -> Enrolment {
    Enrolment::of(facts.labels.get(LABEL).map(String::as_str))
}

/// Takes leave of a lane whose thread ends.
fn join(lane: Lane) {
    drop(tokio::task::spawn_blocking(move || lane.join()));
}

/// Waits for a change. Where nobody will ever tell of one, for ever.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
