use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::failure::Failure;

/// How asking the API server goes. Cheap to clone; all clones are the same.
///
/// What is known stays in use as long as nothing newer comes: a lost API server takes nothing
/// away, but from then on what is known grows old.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, State>>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// Has it all been told once?
    known: bool,
    /// What went wrong last, unless something went well since.
    failing: Option<String>,
    failures: BTreeMap<&'static str, u64>,
}

/// How it goes with one kind of objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Of {
    /// The objects: `pods`, `pods of the node`, `services` or `endpointslices`.
    pub what: &'static str,
    /// Have they all been told once?
    pub known: bool,
    /// In a sentence, what is wrong now.
    pub failing: Option<String>,
    /// How often asking has failed, by reason: `refused`, `unreachable`, `silent`, `unusable` or
    /// `forgotten`, which is a history that has been compacted away and means nothing bad.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Of {
    /// Every reason for which asking fails.
    pub const REASONS: [&str; 5] = ["forgotten", "refused", "silent", "unreachable", "unusable"];
}

impl Health {
    /// Has everything that is asked for been told once? It stays so when the API server is lost.
    pub fn is_known(&self) -> bool {
        let states = self.states();
        !states.is_empty() && states.values().all(|state| state.known)
    }

    /// What is wrong now, a sentence for each kind of objects; empty if nothing is.
    pub fn failing(&self) -> Vec<String> {
        let states = self.states();
        states.values().filter_map(|s| s.failing.clone()).collect()
    }

    /// Each kind of objects that is asked for.
    pub fn all(&self) -> Vec<Of> {
        let of = |(what, state): (&&'static str, &State)| {
            let State {
                known,
                failing,
                failures,
            } = state.clone();
            Of {
                what,
                known,
                failing,
                failures,
            }
        };
        self.states().iter().map(of).collect()
    }

    pub(super) fn asks(&self, what: &'static str) {
        self.states().entry(what).or_default();
    }

    /// All have been told.
    pub(super) fn knows(&self, what: &'static str) {
        self.states().entry(what).or_default().known = true;
    }

    /// The API server answers. Tells the log if it did not.
    pub(super) fn answers(&self, what: &'static str) {
        let was = self.states().entry(what).or_default().failing.take();
        if was.is_some() {
            tracing::info!("the Kubernetes API tells of {what} again");
        }
    }

    /// Tells the log, once until it answers.
    pub(super) fn fails(&self, what: &'static str, failure: &Failure) {
        let mut states = self.states();
        let state = states.entry(what).or_default();
        *state.failures.entry(failure.reason()).or_default() += 1;
        if failure.is_harmless() {
            return;
        }
        let first = state.failing.is_none();
        let known = if state.known {
            "what is known of them stays in use"
        } else {
            "nothing is known of them yet"
        };
        let sentence = format!("the Kubernetes API does not tell of {what}: {failure}; {known}");
        state.failing = Some(sentence.clone());
        drop(states);
        if first {
            tracing::warn!("{sentence}");
        }
    }

    /// As if the API server had said nothing.
    #[cfg(test)]
    pub(crate) fn hears_nothing(&self, what: &'static str) {
        self.fails(what, &Failure::Silent(std::time::Duration::from_secs(1)));
    }

    /// As if it had told all of them.
    #[cfg(test)]
    pub(crate) fn hears(&self, what: &'static str) {
        self.answers(what);
        self.knows(what);
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
