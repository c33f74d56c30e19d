use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::{
    kubernetes::{PodFacts, PodUid},
    proxy::Drain,
    telemetry::Telemetry,
    tls::Tls,
};

/// The pods that the agent captures or should capture, for whoever shows them. Cheap to clone; all
/// clones are the same registry.
#[derive(Clone, Default)]
pub struct Pods {
    shared: Arc<RwLock<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Has the API told which pods there are?
    is_known: bool,
    /// Those that ask to be captured, and those that ceased to and are not done with.
    pods: BTreeMap<PodUid, Listed>,
}

/// A pod of the registry.
#[derive(Clone)]
pub struct Listed {
    /// What the API says of it.
    pub facts: Arc<PodFacts>,
    /// How far it has got.
    pub state: State,
    /// What serves it, from when it is captured.
    pub served: Option<Served>,
}

/// How far a pod has got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It is not on this node yet, or not to be seen: why.
    Waiting(String),
    /// It is about to be captured.
    Beginning,
    /// Its connections are taken.
    Captured,
    /// It cannot be captured, and nobody tries: why.
    Skipped(String),
    /// It could not be captured, and is tried again: why. It is closed meanwhile if it was captured
    /// before.
    Failed(String),
    /// Open connections are served, and no new ones are taken.
    Leaving,
}

impl State {
    /// Every word, in their order.
    pub const WORDS: [&str; 6] = [
        "beginning",
        "captured",
        "failed",
        "leaving",
        "skipped",
        "waiting",
    ];

    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Beginning => "beginning",
            Self::Captured => "captured",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
            Self::Leaving => "leaving",
        }
    }

    /// Why it is so, where that needs to be said.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Waiting(why) | Self::Skipped(why) | Self::Failed(why) => Some(why),
            Self::Beginning | Self::Captured | Self::Leaving => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.why().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// What serves a captured pod.
#[derive(Clone)]
pub struct Served {
    /// What its connections report to.
    pub telemetry: Telemetry,
    /// Its own identity, once it has one.
    pub identity: watch::Receiver<Option<Arc<Tls>>>,
    /// Tells whether new connections are taken, and how many are open.
    pub drain: Drain,
}

impl Pods {
    /// Has the API told which pods there are? Until then the registry is no answer to who is missing.
    pub fn is_known(&self) -> bool {
        self.read(|shared| shared.is_known)
    }

    /// All of them, in the order of their uids.
    pub fn all(&self) -> Vec<Listed> {
        self.read(|shared| shared.pods.values().cloned().collect())
    }

    /// The pod of this name, the captured one where an older one of the same name is still leaving.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Listed> {
        self.read(|shared| {
            let named = shared
                .pods
                .values()
                .filter(|pod| pod.facts.namespace() == namespace && pod.facts.name == name);
            named
                .max_by_key(|pod| pod.state == State::Captured)
                .cloned()
        })
    }

    /// Is no pod about to be captured, and has none failed to be? Those that are not here yet, and those
    /// that cannot be captured, are no reason to wait.
    pub fn is_settled(&self) -> bool {
        self.read(|shared| {
            shared.is_known
                && !shared
                    .pods
                    .values()
                    .any(|pod| matches!(pod.state, State::Beginning | State::Failed(_)))
        })
    }

    /// The API has told which pods there are.
    pub(crate) fn known(&self) {
        self.write(|shared| shared.is_known = true);
    }

    /// A pod has got this far.
    pub(crate) fn put(&self, facts: &Arc<PodFacts>, state: State, served: Option<Served>) {
        let listed = Listed {
            facts: Arc::clone(facts),
            state,
            served,
        };
        self.write(|shared| shared.pods.insert(facts.uid.clone(), listed));
    }

    /// A pod is done with.
    pub(super) fn remove(&self, uid: &PodUid) {
        self.write(|shared| shared.pods.remove(uid));
    }

    fn read<T>(&self, look: impl FnOnce(&Shared) -> T) -> T {
        look(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        change(&mut self.shared.write().unwrap_or_else(PoisonError::into_inner))
    }
}
