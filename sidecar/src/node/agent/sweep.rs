//! What agents have left pinned for pods that have gone.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use super::{Agent, LINGER, enrolment};
use crate::{
    bpf::agents,
    kubernetes::{Enrolment, PodFacts, PodUid},
    node::tree::Tree,
};

impl Agent {
    /// Removes what agents have pinned for pods that have gone, or ask for none any more.
    ///
    /// The agent that began last sweeps, and only what nobody serves: what another one has captured
    /// may be news to us.
    pub(super) fn sweep(&self, known: &BTreeMap<PodUid, PodFacts>, tree: &Tree) {
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
}
