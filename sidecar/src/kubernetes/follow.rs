use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use kube::core::{
    Request, WatchEvent,
    params::{ListParams, WatchParams},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt as _};

use super::{client::Client, failure::Failure, wire::nullable};
use crate::identity::Backoff;

/// How many objects come in one answer.
const PAGE: u32 = 250;
/// How long the API server may take for a page, or to begin a watch.
const ANSWER: Duration = Duration::from_secs(30);
/// After how many seconds the API server ends a watch, which is then asked for again. So often a
/// connection is noticed that has died without a word.
const WATCH: u32 = 120;
/// How much later than that it is taken for dead.
const GRACE: Duration = Duration::from_secs(10);
/// A watch that brings nothing and ends earlier is one that failed.
const SHORT: Duration = Duration::from_secs(1);

/// Which objects.
#[derive(Clone, Debug)]
pub(super) struct What {
    /// For logs and metrics.
    pub name: &'static str,
    /// Such as `/api/v1/pods`.
    pub path: &'static str,
    pub fields: Option<String>,
    pub labels: Option<String>,
}

/// What is told of objects.
#[derive(Debug)]
pub(super) enum Told<T> {
    /// There are these, and no others.
    All(Vec<T>),
    /// There is this one.
    Is(T),
    /// This one is gone.
    Gone(T),
}

/// An object as the API has it.
pub(super) trait Object: Clone + DeserializeOwned + Send + 'static {
    /// Of which version it is.
    fn version(&self) -> &str;
}

/// Tells of objects, all of them first and then what happens to them, for ever.
///
/// The watcher of kube's runtime is not used: a watch that is refused with 410 it would ask for
/// again and again, one that ends at once it asks for again without a pause, and an event that it
/// cannot read it passes over, so that its object is out of date until it changes again.
///
/// `keep` takes from each object what is needed; so a list is never in memory as a whole.
pub(super) async fn follow<W: Object, T>(
    client: &Client,
    what: &What,
    keep: impl Fn(W) -> T,
    mut tell: impl FnMut(Told<T>),
) {
    let health = &client.health;
    health.asks(what.name);
    let mut backoff = Backoff::new();
    let mut version = None;
    loop {
        let from = match version.take() {
            Some(version) => Ok(version),
            None => list(client, what, &keep).await.map(|(all, version)| {
                // Whoever sees what is told finds that it was told, and whoever finds it known sees it.
                health.answers(what.name);
                tell(Told::All(all));
                health.knows(what.name);
                version
            }),
        };
        let ended = match from {
            Ok(from) => {
                let mut watch = Watch {
                    fresh: false,
                    version: from,
                };
                let ended = watch.run(client, what, &keep, &mut tell).await;
                if watch.fresh {
                    backoff.worked();
                }
                if !ended.as_ref().is_err_and(Failure::needs_a_list) {
                    version = Some(watch.version);
                }
                ended
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = ended {
            health.fails(what.name, &failure);
            let wait = backoff.failed();
            sleep(failure.wait().map_or(wait, |wanted| wanted.max(wait))).await;
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "W: Deserialize<'de>"))]
struct List<W> {
    metadata: ListMetadata,
    #[serde(deserialize_with = "nullable", default = "Vec::new")]
    items: Vec<W>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: Option<String>,
}

/// All objects, and the version that this is how it was at.
async fn list<W: Object, T>(
    client: &Client,
    what: &What,
    keep: &impl Fn(W) -> T,
) -> Result<(Vec<T>, String), Failure> {
    let mut parameters = ListParams {
        field_selector: what.fields.clone(),
        label_selector: what.labels.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    let mut all = Vec::new();
    loop {
        let request = Request::new(what.path).list(&parameters);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let page = timeout(ANSWER, client.kube.request::<List<W>>(request)).await;
        let page = page.map_err(|_| Failure::Silent(ANSWER))??;
        all.extend(page.items.into_iter().map(keep));
        parameters.continue_token = page.metadata.more.filter(|token| !token.is_empty());
        if parameters.continue_token.is_none() {
            if page.metadata.resource_version.is_empty() {
                return Err(Failure::Unusable("a list without version".to_owned()));
            }
            return Ok((all, page.metadata.resource_version));
        }
    }
}

struct Watch {
    /// Has it told anything, or lasted?
    fresh: bool,
    /// How far it is.
    version: String,
}

type Events<W> = Pin<Box<dyn Stream<Item = Result<WatchEvent<W>, kube::Error>> + Send>>;

impl Watch {
    /// Tells what happens, until the watch ends or fails.
    async fn run<W: Object, T>(
        &mut self,
        client: &Client,
        what: &What,
        keep: &impl Fn(W) -> T,
        tell: &mut impl FnMut(Told<T>),
    ) -> Result<(), Failure> {
        let idle = Duration::from_secs(WATCH.into()) + GRACE;
        let began = Instant::now();
        let mut events = self.begin::<W>(client, what).await?;
        loop {
            let event = timeout(idle, events.next()).await;
            let Some(event) = event.map_err(|_| Failure::Silent(idle))? else {
                self.fresh |= began.elapsed() >= SHORT;
                return if self.fresh {
                    client.health.answers(what.name);
                    Ok(())
                } else {
                    Err(Failure::Unreachable("it ends what it began".to_owned()))
                };
            };
            let (object, exists) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                WatchEvent::Deleted(object) => (object, false),
                WatchEvent::Bookmark(bookmark) => {
                    self.reached(client, what, &bookmark.metadata.resource_version)?;
                    continue;
                }
                WatchEvent::Error(status) => return Err(Failure::from(status)),
            };
            self.reached(client, what, object.version())?;
            let object = keep(object);
            tell(if exists {
                Told::Is(object)
            } else {
                Told::Gone(object)
            });
        }
    }

    async fn begin<W: Object>(&self, client: &Client, what: &What) -> Result<Events<W>, Failure> {
        let parameters = WatchParams {
            field_selector: what.fields.clone(),
            label_selector: what.labels.clone(),
            timeout: Some(WATCH),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = Request::new(what.path).watch(&parameters, &self.version);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let events = timeout(ANSWER, client.kube.request_events::<W>(request)).await;
        let events = events.map_err(|_| Failure::Silent(ANSWER))??;
        Ok(Box::pin(events))
    }

    fn reached(&mut self, client: &Client, what: &What, version: &str) -> Result<(), Failure> {
        if version.is_empty() {
            return Err(Failure::Unusable("an event without version".to_owned()));
        }
        version.clone_into(&mut self.version);
        self.fresh = true;
        client.health.answers(what.name);
        Ok(())
    }
}
