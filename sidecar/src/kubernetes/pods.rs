use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::{
    LABEL, PodFacts, PodUid,
    client::Client,
    follow::{Told, What, follow},
    wire,
};

/// The pods of a node that ask to be captured; `None` until the API has told of all of them.
pub type KnownPods = Option<Arc<BTreeMap<PodUid, PodFacts>>>;

/// The pods of `node` that ask to be captured ([`LABEL`]), now and whenever they change, as long as
/// somebody listens.
///
/// It is always all of them: while a lost API server comes back, or a list is read again, they stay
/// as they were. A pod that no longer asks is gone, like one that is deleted; one that has ended
/// ([`PodFacts::ended`]) stays until it is deleted.
pub fn pods(client: &Client, node: &str) -> watch::Receiver<KnownPods> {
    let what = What {
        name: "pods of the node",
        path: "/api/v1/pods",
        fields: Some(format!("spec.nodeName={node}")),
        labels: Some(format!("{LABEL} in (enabled,node)")),
    };
    let (sender, receiver) = watch::channel(None);
    let client = client.clone();
    tokio::spawn(async move {
        let telling = follow(
            &client,
            &what,
            <PodFacts as From<wire::Pod>>::from,
            |told| {
                sender.send_if_modified(|known| change(known, told));
            },
        );
        tokio::select! {
            () = telling => (),
            () = sender.closed() => (),
        }
    });
    receiver
}

/// Whether anything is different now.
fn change(known: &mut KnownPods, told: Told<PodFacts>) -> bool {
    let keyed = |pod: PodFacts| (pod.uid.clone(), pod);
    match told {
        Told::All(all) => {
            let all: BTreeMap<_, _> = all.into_iter().map(keyed).collect();
            if known.as_deref() == Some(&all) {
                return false;
            }
            *known = Some(Arc::new(all));
            true
        }
        Told::Is(pod) => {
            let all = Arc::make_mut(known.get_or_insert_default());
            if all.get(&pod.uid) == Some(&pod) {
                return false;
            }
            all.insert(pod.uid.clone(), pod);
            true
        }
        Told::Gone(pod) => {
            let all = Arc::make_mut(known.get_or_insert_default());
            all.remove(&pod.uid).is_some()
        }
    }
}

#[cfg(test)]
mod tests;
