use std::{sync::Arc, time::Instant};

use super::{
    lane::{Lane, Order},
    process::Namespace,
    registry::{Served, State},
};
use crate::{identity::Backoff, kubernetes::PodFacts};

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
