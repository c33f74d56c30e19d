use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData, SpanExporter as _};
use tokio::{
    sync::mpsc::Receiver,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Counts, Passed, resource, span};
use crate::proxy::Drain;

/// Spans that are sent at once.
const BATCH: usize = 512;
/// How long spans wait for others to be sent with.
const PAUSE: Duration = Duration::from_secs(1);
/// The same, once the proxy ends and nothing but our own connection is open.
const PAUSE_AT_THE_END: Duration = Duration::from_millis(20);
/// How often it is looked, once the proxy ends, whether that is so.
const LOOK: Duration = Duration::from_millis(100);
/// How long the collector may take, retries included.
const LONGEST: Duration = Duration::from_secs(5);
/// How long it may take when everything else has ended.
const LONGEST_AT_THE_END: Duration = Duration::from_secs(1);
/// How often a failure is told that lasts.
const REMIND: Duration = Duration::from_mins(1);

/// Makes spans of what waits, and sends them.
pub struct Export {
    collector: SocketAddr,
    waiting: Receiver<Passed>,
    counts: Arc<Counts>,
    scope: InstrumentationScope,
    /// The connection to the collector, and as whom we speak; `None` while there is nothing to say.
    exporter: Option<(Arc<str>, SpanExporter)>,
    /// When it was last told that the collector takes nothing.
    told: Option<Instant>,
}

/// The task that sends spans.
#[must_use = "spans that wait are lost unless it is finished"]
pub struct Exporting {
    stages: Stages,
    task: JoinHandle<()>,
}

/// How far the proxy's end has come.
#[derive(Clone, Default)]
struct Stages {
    /// It is about to end.
    ending: CancellationToken,
    /// What waited then was sent, or could not be.
    flushed: CancellationToken,
    /// It has ended.
    ended: CancellationToken,
}

impl Exporting {
    /// The proxy is about to end: sends what waits, for a second at most, while the collector can
    /// still be dialled through our own proxy. The connection to it is closed when it is the last
    /// that is open, so that the drain does not wait for it.
    pub async fn flush(&self) {
        self.stages.ending.cancel();
        let flushed = self.stages.flushed.cancelled();
        // What is under way then goes on, and is waited for at the end.
        let _ = timeout(LONGEST_AT_THE_END, flushed).await;
    }

    /// Sends what waits, for a second at most.
    pub async fn finish(self) {
        self.stages.ended.cancel();
        if timeout(LONGEST_AT_THE_END, self.task).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

impl Export {
    pub(super) fn new(
        collector: SocketAddr,
        waiting: Receiver<Passed>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            collector,
            waiting,
            counts,
            scope: span::scope(),
            exporter: None,
            told: None,
        }
    }

    /// Begins to send. The drain tells whose connections are open.
    pub fn start(self, drain: Drain) -> Exporting {
        let stages = Stages::default();
        let task = tokio::spawn(self.run(drain, stages.clone()));
        Exporting { stages, task }
    }

    async fn run(mut self, drain: Drain, stages: Stages) {
        loop {
            // Before the look into the queue: what others have put there on their end is seen.
            let is_ending = stages.ending.is_cancelled();
            let is_last = is_ending && drain.open() <= 1;
            let has_ended = stages.ended.is_cancelled();
            let batch = self.gather(&drain, &stages).await;
            let is_all = batch.len() < BATCH;
            self.send(&batch).await;
            if is_all && is_ending {
                stages.flushed.cancel();
            }
            if is_all && is_last {
                self.exporter = None;
            }
            // Where nobody tells of the end, all that could tell of spans have gone.
            let is_left = self.waiting.is_closed() && self.waiting.is_empty();
            if is_all && (has_ended || is_left) {
                return;
            }
        }
    }

    /// What waits, up to a batch, or what comes until the pause is over.
    async fn gather(&mut self, drain: &Drain, stages: &Stages) -> Vec<Passed> {
        let mut batch = Vec::new();
        let started = Instant::now();
        while batch.len() < BATCH {
            let is_ending = stages.ending.is_cancelled();
            let has_ended = stages.ended.is_cancelled();
            let is_flushing = is_ending && !stages.flushed.is_cancelled();
            // Without a connection there is nothing that the drain waits for.
            let is_waited_for = is_ending && self.exporter.is_some() && drain.open() <= 1;
            let pause = if has_ended || is_flushing {
                Duration::ZERO
            } else if is_waited_for {
                PAUSE_AT_THE_END
            } else {
                PAUSE
            };
            let over = started + pause;
            let wake = if is_ending {
                over.min(Instant::now() + LOOK)
            } else {
                over
            };
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                received = self.waiting.recv_many(&mut batch, room) => {
                    if received == 0 {
                        // Nobody is left to send anything; the end is told otherwise.
                        sleep_until(over).await;
                        return batch;
                    }
                }
                () = sleep_until(wake) => {
                    if wake == over {
                        return batch;
                    }
                }
                () = stages.ending.cancelled(), if !is_ending => {}
                () = stages.ended.cancelled(), if !has_ended => {}
            }
        }
        batch
    }

    async fn send(&mut self, batch: &[Passed]) {
        let Some(own) = batch.last().map(|passed| Arc::clone(&passed.own)) else {
            return;
        };
        let ids = RandomIdGenerator::default();
        let spans: Vec<SpanData> = batch
            .iter()
            .filter_map(|passed| span::span(passed, ids.new_span_id(), self.scope.clone()))
            .collect();
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let sent = match self.exporter(own) {
            Ok(exporter) => exporter
                .export(spans)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {
                self.counts.exported.fetch_add(count, Ordering::Relaxed);
                if self.told.take().is_some() {
                    tracing::info!("the collector at {} takes spans again", self.collector);
                }
            }
            Err(error) => {
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                if self.told.is_none_or(|told| told.elapsed() >= REMIND) {
                    self.told = Some(Instant::now());
                    tracing::warn!(
                        "the collector at {} takes no spans, which are dropped: {error}",
                        self.collector
                    );
                }
            }
        }
    }

    /// The connection to the collector, over which we speak as `own`. It is made when it is used,
    /// again each time that it is lost.
    fn exporter(&mut self, own: Arc<str>) -> Result<&SpanExporter, String> {
        let (_, exporter) = match self.exporter.take() {
            Some((as_whom, exporter)) if as_whom == own => self.exporter.insert((own, exporter)),
            known => {
                let mut exporter = match known {
                    Some((_, exporter)) => exporter,
                    None => self.connect()?,
                };
                exporter.set_resource(&resource::of(&own));
                self.exporter.insert((own, exporter))
            }
        };
        Ok(exporter)
    }

    fn connect(&self) -> Result<SpanExporter, String> {
        SpanExporter::builder()
            .with_tonic()
            .with_endpoint(format!("http://{}", self.collector))
            .with_timeout(LONGEST)
            .build()
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;
    use crate::telemetry::Traces;

    /// How long it waits for spans once the proxy ends, where these connections are open.
    async fn pause(is_connected: bool, drain: &Drain) -> Duration {
        let (_traces, mut export) = Traces::to("127.0.0.1:1".parse().expect("an address"));
        if is_connected {
            export
                .exporter("spiffe://a/b".into())
                .expect("not dialled yet");
        }
        let stages = Stages::default();
        stages.ending.cancel();
        stages.flushed.cancel();
        let started = Instant::now();
        assert!(export.gather(drain, &stages).await.is_empty());
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_waits_for_our_connection_alone_is_not_kept_waiting() {
        let drain = Drain::default();
        drain.spawn(pending());
        assert_eq!(pause(true, &drain).await, PAUSE_AT_THE_END);
        let last = Duration::from_millis(250);
        drain.spawn(sleep(last));
        let waited = pause(true, &drain).await;
        assert!(waited >= last && waited < last + LOOK * 2, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_is_left_who_could_tell_of_spans() {
        let (traces, export) = Traces::to("127.0.0.1:1".parse().expect("an address"));
        let exporting = export.start(Drain::default());
        sleep(PAUSE * 10).await;
        assert!(!exporting.task.is_finished());
        drop(traces);
        let ended = timeout(PAUSE * 10, exporting.task).await;
        ended.expect("it goes on for ever").expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_ends_for_hours_does_not_send_more_often() {
        let drain = Drain::default();
        drain.spawn(pending());
        assert_eq!(pause(false, &drain).await, PAUSE);
        drain.spawn(pending());
        assert_eq!(pause(true, &drain).await, PAUSE);
    }
}
