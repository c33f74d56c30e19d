use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    lane::{Lane, Order},
    process::Namespace,
    registry::{Served, State},
};
use crate::{identity::Backoff, kubernetes::PodFacts};

/// How often pods are looked at although nobody has told of a change.
pub(super) const POLL: Duration = Duration::from_secs(5);
/// How often a pod is looked for whose first process is about to come.
const EXPECTANT: Duration = Duration::from_millis(50);
/// For how long that is: a sandbox that cannot be made is no reason to hurry for ever.
const EXPECTED: Duration = Duration::from_secs(10);

/// One pod, as far as the agent has got with it.
pub(super) struct Slot {
    pub(super) facts: Arc<PodFacts>,
    pub(super) state: State,
    pub(super) running: Option<Running>,
    /// When a lane may be started again.
    pub(super) retry: Option<Instant>,
    pub(super) backoff: Backoff,
    /// Does another agent serve it, which has taken it from us?
    pub(super) is_elsewhere: bool,
    /// Since when the API does not tell of it.
    pub(super) absent: Option<Instant>,
    /// What is wrong with its annotations.
    pub(super) refused: Option<Refused>,
    /// The namespace in which it is closed for that.
    pub(super) closed: Option<Namespace>,
    /// Since when a process of it has been looked for that is in a namespace of the pod's own.
    pub(super) expected: Option<Instant>,
}

/// Annotations that a pod cannot have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refused {
    pub(super) why: String,
}

/// A lane of a pod.
pub(super) struct Running {
    pub(super) lane: Lane,
    pub(super) netns: Namespace,
    /// What shows it, if it is to serve.
    pub(super) served: Option<Served>,
    pub(super) order: Order,
    pub(super) is_captured: bool,
    /// When it was last looked whether the pod is still in that namespace.
    pub(super) checked: Instant,
}

impl Slot {
    pub(super) fn new(facts: Arc<PodFacts>) -> Self {
        Self {
            facts,
            state: State::Waiting("it was just told of".to_owned()),
            running: None,
            retry: None,
            backoff: Backoff::new(),
            is_elsewhere: false,
            absent: None,
            refused: None,
            closed: None,
            expected: None,
        }
    }

    /// Is its lane about to begin?
    pub(super) fn is_starting(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.is_captured && running.order == Order::Serve)
    }

    /// How soon it is to be looked at again, unless somebody tells of a change.
    pub(super) fn next_look(&self) -> Duration {
        let now = Instant::now();
        match (self.absent, self.retry) {
            (Some(_), _) => POLL / 5,
            // What was tried in time and is not running waits for something else than the time.
            (_, Some(retry)) if retry > now => retry.duration_since(now),
            _ => match self.expected {
                Some(since) if since.elapsed() < EXPECTED => EXPECTANT,
                Some(_) => POLL / 5,
                None => POLL,
            },
        }
    }

    /// Has its lane end.
    pub(super) fn order(&mut self, order: Order) {
        if let Some(running) = &mut self.running
            && running.order == Order::Serve
        {
            running.order = order;
            running.lane.order(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing;

    #[test]
    fn a_retry_is_looked_at_in_time_and_one_whose_time_is_past_is_no_reason_to_hurry() {
        let mut slot = Slot::new(Arc::new(testing::facts(testing::pod("web", "one", ""))));
        assert_eq!(slot.next_look(), POLL);
        slot.retry = Instant::now().checked_add(POLL / 2);
        assert!(slot.next_look() <= POLL / 2);
        slot.retry = Instant::now().checked_sub(Duration::from_millis(1));
        assert_eq!(slot.next_look(), POLL);
    }

    #[test]
    fn a_first_process_is_waited_for_eagerly_but_not_for_ever() {
        let mut slot = Slot::new(Arc::new(testing::facts(testing::pod("web", "one", ""))));
        slot.expected = Some(Instant::now());
        assert_eq!(slot.next_look(), EXPECTANT);
        slot.expected = Instant::now().checked_sub(EXPECTED);
        assert_eq!(slot.next_look(), POLL / 5);
    }
}
