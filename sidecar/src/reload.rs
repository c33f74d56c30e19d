//! Takes over changed settings while the daemon runs.

use std::{fmt, future::pending, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    bpf,
    changes::Changes,
    config::{Settings, Source},
    policy::Policy,
    telemetry::Telemetry,
};

/// What is taken over at once, by key. Everything else takes a restart.
const RELOADABLE: [&str; 14] = [
    "authorization",
    "exclude-inbound-ports",
    "exclude-outbound-cidrs",
    "exclude-outbound-ports",
    "exclude-uids",
    "expect",
    "inbound",
    "inbound-failure",
    "naming",
    "outbound",
    "outbound-failure",
    "overrides",
    "probe-ports",
    "probe-sources",
];

/// How long a file must stay as it is to be taken for whole: one that is written in place may be
/// valid when half of it is there.
const SETTLE: Duration = Duration::from_millis(100);

/// Keeps the policy as the settings file says, until the end.
pub struct Reload<T> {
    /// Where settings come from.
    source: Source,
    /// Those the daemon was started with; of the ones that take a restart, they are in force.
    started: Settings,
    /// What was read last, so that a file that stays as it is, also a bad one, is told once.
    last: Result<Settings, String>,
    /// Tells connections.
    policy: watch::Sender<Arc<Policy>>,
    /// Tells the kernel.
    tables: T,
    /// Counts.
    telemetry: Telemetry,
}

/// What the kernel decides by, to be changed in two steps, between which nobody else does.
pub trait Tables {
    /// Takes the turn to change them; `false` while somebody else has it.
    fn try_begin(&mut self) -> Result<bool, bpf::Error>;
    /// Takes over whatever is stricter in a policy. When it fails, nothing is laxer than before.
    fn tighten(&mut self, policy: &Policy) -> Result<(), bpf::Error>;
    /// Takes over the rest. When it fails, nothing is laxer than the policy.
    fn loosen(&mut self, policy: &Policy) -> Result<(), bpf::Error>;
    /// Gives the turn back.
    fn end(&mut self);
}

impl<T: Tables> Reload<T> {
    /// Prepares for changes of settings with which the daemon was started.
    pub fn new(
        source: Source,
        started: Settings,
        policy: watch::Sender<Arc<Policy>>,
        tables: T,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            source,
            last: Ok(started.clone()),
            started,
            policy,
            tables,
            telemetry,
        }
    }

    /// Takes over the settings whenever the file changes, and on SIGHUP.
    pub async fn keep(mut self) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!("cannot wait for SIGHUP: {error}"))
            .ok();
        let mut changes = self.source.path().map(|path| Changes::of([path]));
        // It may have changed since the start, before anybody watched.
        self.look(false).await;
        loop {
            let is_asked = tokio::select! {
                () = next_change(changes.as_mut()) => false,
                () = next_signal(hangup.as_mut()) => true,
            };
            self.look(is_asked).await;
        }
    }

    /// Takes over the settings that somebody else tells, whenever they are others.
    pub async fn follow(mut self, mut settings: watch::Receiver<Settings>) {
        while settings.changed().await.is_ok() {
            let told = settings.borrow_and_update().clone();
            if self.last.as_ref() != Ok(&told) {
                self.last = Ok(told.clone());
                let outcome = self.take_over_in_turn(told).await;
                self.tell(outcome);
            }
        }
    }

    /// Reads the settings, and takes them over if they are others than before, or if asked to.
    async fn look(&mut self, is_asked: bool) {
        let read = self.read().await;
        if read == self.last && !is_asked {
            return;
        }
        self.last.clone_from(&read);
        let outcome = match read {
            Ok(settings) => self.take_over_in_turn(settings).await,
            Err(error) => Err(kept(error)),
        };
        self.tell(outcome);
    }

    fn tell(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.telemetry.reloaded(true);
                tracing::info!("took over the settings");
            }
            Err(why) => {
                self.telemetry.reloaded(false);
                tracing::error!(outcome = "refused", "{why}");
            }
        }
    }

    /// The settings, once they stay as they are.
    async fn read(&self) -> Result<Settings, String> {
        let read = || self.source.reread().map_err(|error| error.to_string());
        let mut seen = read();
        loop {
            sleep(SETTLE).await;
            let again = read();
            if again == seen {
                return seen;
            }
            seen = again;
        }
    }

    /// Makes the settings hold once nobody else changes what the kernel decides by: a sidecar that takes
    /// the pod over must not find anything of ours written after its own.
    async fn take_over_in_turn(&mut self, settings: Settings) -> Result<(), String> {
        const PERIOD: Duration = Duration::from_millis(50);
        /// Taking a pod over is a matter of seconds.
        const PATIENCE: Duration = Duration::from_secs(10);
        let asked = Instant::now();
        let mut is_told = false;
        while !self.tables.try_begin().map_err(kept)? {
            if !is_told && asked.elapsed() >= PATIENCE {
                is_told = true;
                tracing::warn!(
                    "the changed settings do not hold yet: another process has been changing what is pinned for the pod for {PATIENCE:?}; see whether a sidecar or `sidecar cleanup` hangs"
                );
            }
            sleep(PERIOD).await;
        }
        let outcome = self.take_over(settings);
        self.tables.end();
        outcome
    }

    /// Makes the settings hold, all that can be changed at once.
    fn take_over(&mut self, settings: Settings) -> Result<(), String> {
        let mut of_restart = settings.differing(&self.started);
        of_restart.retain(|key| !RELOADABLE.contains(&key.as_str()));
        let policy = self.source.config(settings).map_err(kept)?.policy;
        // The kernel first becomes as strict as both policies, then connections are told, and only
        // then does the kernel leave alone what the new policy does: so nothing passes that
        // neither policy lets pass.
        if let Err(error) = self.tables.tighten(&policy) {
            let old = Arc::clone(&self.policy.borrow());
            let undone = self.tables.loosen(&old);
            let more =
                undone.map_or_else(|error| format!(", nor back: {error}"), |()| String::new());
            return Err(kept(format!(
                "the kernel cannot be changed to the new ones: {error}{more}"
            )));
        }
        self.policy.send_replace(Arc::new(policy.clone()));
        if !of_restart.is_empty() {
            tracing::warn!(
                "changes of {} wait for a restart of the sidecar; the rest is taken over now",
                of_restart.join(", ")
            );
        }
        self.tables.loosen(&policy).map_err(|error| {
            format!("connections are held to the new settings, the kernel to the stricter of the old and the new: {error}; restart the sidecar")
        })
    }
}

/// What is said when nothing was taken over.
fn kept(why: impl fmt::Display) -> String {
    format!("kept the settings as they were: {why}")
}

async fn next_change(changes: Option<&mut Changes>) {
    match changes {
        Some(changes) => changes.next().await,
        None => pending().await,
    }
}

async fn next_signal(signal: Option<&mut Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        // None will ever come.
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
