use serde_json::json;
use sidecar_tests::{
    KubeApi,
    kube_api::{Answer, Happening, PODS, Verb},
};

use super::{
    super::testing::{client, eventually, pod, until},
    *,
};

/// An API server with two pods on the node `one`, and what is known of it.
struct Site {
    api: KubeApi,
    client: Client,
    known: watch::Receiver<KnownPods>,
}

impl Site {
    async fn new() -> Self {
        let api = KubeApi::start();
        api.put(pod("a", "one", "198.18.0.1"));
        api.put(pod("b", "one", "198.18.0.2"));
        let client = client(&api).await;
        let known = pods(&client, "one");
        let mut site = Self { api, client, known };
        site.knows(&["a", "b"]).await;
        site.watches().await;
        site
    }

    async fn watches(&self) {
        eventually("a watch", || self.api.watches(PODS) == 1).await;
    }

    /// Waits until these pods are known; at no time may it be fewer than `a` and `b`.
    async fn knows(&mut self, expected: &[&str]) {
        until(&mut self.known, |known| names(known) == expected).await;
    }

    /// Does something to the API server, and checks that the pods stay known, that what happens
    /// afterwards is heard of, and how often it had to be asked for a list.
    async fn survives(mut self, lists: usize, harm: impl FnOnce(&mut KubeApi)) {
        let before = self.lists();
        let mut all = self.known.clone();
        let least = tokio::spawn(async move {
            let mut least = usize::MAX;
            while all.changed().await.is_ok() {
                let names = names(&all.borrow_and_update());
                least = least.min(names.len());
                if names.contains(&"last".to_owned()) {
                    break;
                }
            }
            least
        });
        harm(&mut self.api);
        self.api.put(pod("c", "one", "198.18.0.3"));
        self.knows(&["a", "b", "c"]).await;
        self.watches().await;
        self.api.put(pod("last", "one", "198.18.0.9"));
        self.knows(&["a", "b", "c", "last"]).await;
        assert!(least.await.expect("no panic") >= 2, "pods have disappeared");
        assert_eq!(self.lists() - before, lists, "{:#?}", self.api.requests());
        assert_eq!(self.client.health.failing(), [""; 0]);
    }

    fn lists(&self) -> usize {
        let requests = self.api.requests();
        requests.iter().filter(|r| !r.contains("watch=")).count()
    }
}

fn names(known: &KnownPods) -> Vec<String> {
    let pods = known.iter().flat_map(|known| known.values());
    let mut names: Vec<_> = pods.map(|pod| pod.name.clone()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_the_node_that_ask_for_it_are_known() {
    let mut site = Site::new().await;
    site.api.put(pod("elsewhere", "two", "198.18.0.4"));
    let mut plain = pod("plain", "one", "198.18.0.5");
    plain["metadata"]["labels"] = json!({"app": "plain"});
    site.api.put(plain);
    site.api.put(pod("c", "one", "198.18.0.3"));
    site.knows(&["a", "b", "c"]).await;
    site.api.edit(PODS, "shop", "a", |pod| {
        pod["metadata"]["labels"] = json!({});
    });
    site.knows(&["b", "c"]).await;
    site.api.delete(PODS, "shop", "b");
    site.knows(&["c"]).await;
    site.api.edit(PODS, "shop", "c", |pod| {
        pod["status"]["phase"] = json!("Failed");
    });
    until(&mut site.known, |known| {
        known
            .iter()
            .flat_map(|all| all.values())
            .all(|pod| pod.ended)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_known_until_all_is() {
    let api = KubeApi::start();
    api.fail(Verb::List, PODS, 1, Answer::Status(500));
    for number in 0..300 {
        api.put(pod(&format!("p{number:03}"), "one", "198.18.0.1"));
    }
    let client = client(&api).await;
    let mut known = pods(&client, "one");
    assert_eq!(*known.borrow_and_update(), None);
    assert!(!client.health.is_known());
    known.changed().await.expect("it is told");
    // In two pages, and at once.
    assert_eq!(names(&known.borrow_and_update()).len(), 300);
    eventually("it is known", || client.health.is_known()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_is_resumed_without_a_list() {
    let site = Site::new().await;
    site.survives(0, |api| api.happens(PODS, Happening::Disconnect))
        .await;
    let site = Site::new().await;
    site.survives(0, |api| api.happens(PODS, Happening::End))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_short_is_heard_again() {
    let mut site = Site::new().await;
    site.api.put(pod("half", "one", "198.18.0.8"));
    site.knows(&["a", "b", "half"]).await;
    site.api.delete(PODS, "shop", "half");
    site.knows(&["a", "b"]).await;
    site.survives(0, |api| api.happens(PODS, Happening::HalfLine))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_twice_change_nothing() {
    let mut site = Site::new().await;
    site.api.put(pod("c", "one", "198.18.0.3"));
    site.knows(&["a", "b", "c"]).await;
    site.known.mark_unchanged();
    site.api.happens(PODS, Happening::Again);
    site.api.put(pod("d", "one", "198.18.0.4"));
    site.known.changed().await.expect("it is told");
    assert_eq!(names(&site.known.borrow_and_update()), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_forgotten_is_read_anew_and_no_pod_disappears() {
    // As an event on a watch that is resumed.
    let site = Site::new().await;
    site.survives(1, |api| {
        api.be_silent();
        api.put(pod("unseen", "two", "198.18.0.7"));
        api.compact();
        api.recover();
    })
    .await;
    // As an event from nowhere.
    let site = Site::new().await;
    site.survives(1, |api| api.happens(PODS, Happening::Error(410)))
        .await;
    // As the status of the answer.
    let site = Site::new().await;
    site.survives(1, |api| {
        api.fail(Verb::Watch, PODS, 1, Answer::Status(410));
        api.happens(PODS, Happening::End);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_in_the_middle_is_begun_anew() {
    let mut site = Site::new().await;
    for number in 0..300 {
        site.api
            .put(pod(&format!("p{number:03}"), "one", "198.18.0.1"));
    }
    until(&mut site.known, |known| names(known).len() == 302).await;
    let before = site.lists();
    // The first page, and no second one.
    site.api
        .fail_after(Verb::List, PODS, 1, 1, Answer::Status(410));
    site.api.delete(PODS, "shop", "p000");
    site.api.happens(PODS, Happening::Error(410));
    eventually("lists", || site.lists() == before + 4).await;
    until(&mut site.known, |known| names(known).len() == 301).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_followed_by_a_list() {
    for line in [
        "nonsense",
        r#"{"type": "MODIFIED", "object": {"metadata": 7}}"#,
    ] {
        let site = Site::new().await;
        site.survives(1, |api| api.happens(PODS, Happening::Line(line.to_owned())))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_is_asked_again() {
    for code in [429, 500, 503] {
        let site = Site::new().await;
        site.survives(0, |api| {
            api.fail(Verb::Watch, PODS, 1, Answer::Status(code));
            api.happens(PODS, Happening::End);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_takes_no_pod_away_and_is_told_of() {
    let mut site = Site::new().await;
    site.api.stop();
    let client = site.client.clone();
    eventually("a failure", || !client.health.failing().is_empty()).await;
    assert_eq!(names(&site.known.borrow()), ["a", "b"]);
    assert!(client.health.is_known(), "what was known still is");
    let failing = client.health.failing();
    assert!(
        failing[0].starts_with(
            "the Kubernetes API does not tell of pods of the node: it cannot be reached ("
        ),
        "{failing:?}"
    );
    assert!(
        failing[0].ends_with("; what is known of them stays in use"),
        "{failing:?}"
    );
    let counted = client.health.all();
    assert!(counted[0].failures["unreachable"] >= 1, "{counted:?}");
    site.survives(0, KubeApi::resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_listens_to_is_asked_no_more() {
    let Site { api, known, .. } = Site::new().await;
    drop(known);
    // The server notices who has hung up when it says something.
    eventually("the end of the watch", || {
        api.happens(PODS, Happening::Bookmark);
        api.watches(PODS) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_each_watch_at_once_is_not_asked_again_at_once() {
    let api = KubeApi::start();
    api.put(pod("a", "one", "198.18.0.1"));
    api.fail(Verb::Watch, PODS, usize::MAX, Answer::Body(String::new()));
    let client = client(&api).await;
    let mut known = pods(&client, "one");
    until(&mut known, |known| names(known) == ["a"]).await;
    eventually("failures", || {
        let all = client.health.all();
        all[0]
            .failures
            .get("unreachable")
            .is_some_and(|count| *count == 2)
    })
    .await;
    // A list, and two watches: the second after a pause.
    assert_eq!(api.requests().len(), 3, "{:?}", api.requests());
}
