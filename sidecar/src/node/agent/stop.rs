//! How an agent ends.

use std::time::{Duration, Instant};

use super::{Agent, SUCCESSION};
use crate::node::{lane::Order, registry::State};

/// How long one that is told to stop waits for an agent that has begun later to take the pods over.
pub const HAND_OVER: Duration = Duration::from_secs(20);
/// How long after the drain what is left of a lane may take.
pub const AFTERWARDS: Duration = Duration::from_secs(3);

impl Agent {
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
    pub(super) async fn stop(mut self) {
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
