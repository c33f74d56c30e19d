//! What becomes of lanes, and of their pods then.

use std::time::{Duration, Instant};

use super::Agent;
use crate::{
    kubernetes::LABEL,
    node::{
        lane::{Ending, Lane, News, Order, What},
        registry::State,
        slot::Slot,
    },
};

/// How often it is looked whether another agent still serves a pod.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// How often it is looked whether a pod still has a sidecar of its own.
const OWN_SIDECAR: Duration = Duration::from_secs(30);

impl Agent {
    /// Hears what lanes have told, all of it at once.
    pub(super) fn hear_all(&mut self, first: News) {
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

    pub(super) fn failed(&self, slot: &mut Slot, why: String) {
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
}

/// Takes leave of a lane whose thread ends.
fn join(lane: Lane) {
    drop(tokio::task::spawn_blocking(move || lane.join()));
}
