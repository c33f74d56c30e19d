//! How a lane is started for a pod.

use std::{path::Path, time::Instant};

use super::{Agent, HOST_NETWORK};
use crate::{
    config::{Config, Settings},
    identity::Origin,
    kubernetes::PodFacts,
    node::{
        lane::{Lane, Order, Purpose, Start, Wanted},
        process::Namespace,
        registry::{Served, State},
        slot::{Refused, Running, Slot},
        threads::ThreadCgroup,
    },
    policy::{Mode, Policy},
    proxy::Drain,
    telemetry::{self, PodLabels, Telemetry, Traces},
    tls,
};

/// How many lanes begin at once: each has the kernel verify programs meanwhile.
const BEGINNING: usize = 4;
/// Why a pod waits that is expected any moment.
const NO_PROCESS: &str = "no process of it runs yet";

impl Agent {
    pub(super) fn start(
        &mut self,
        slot: &mut Slot,
        cgroup: &Path,
        settings: Result<Box<Config>, Refused>,
    ) {
        let beginning = self
            .slots
            .values()
            .filter(|slot| slot.is_starting())
            .count();
        if beginning >= BEGINNING {
            // Others are captured first; the next look comes when one of them is.
            if !matches!(slot.state, State::Failed(_)) {
                self.set(slot, State::Beginning);
            }
            return;
        }
        let netns = match Namespace::of(cgroup) {
            Ok(Some(netns)) => netns,
            Ok(None) => {
                slot.expected.get_or_insert_with(Instant::now);
                self.set(slot, State::Waiting(NO_PROCESS.to_owned()));
                return;
            }
            Err(error) => {
                let why = format!(
                    "its network namespace cannot be opened: {error}; the agent takes CAP_SYS_PTRACE, and the host's process namespace"
                );
                self.failed(slot, why);
                return;
            }
        };
        if self.hosts.contains(&netns.inode) {
            // A runtime's first process is in the pod's cgroup before it is in its namespace.
            slot.expected.get_or_insert_with(Instant::now);
            self.set(slot, State::Skipped(HOST_NETWORK.to_owned()));
            return;
        }
        slot.expected = None;
        if let Err(error) = self.start_in(slot, cgroup, netns, settings) {
            self.failed(slot, format!("{error:#}"));
        }
    }

    fn start_in(
        &mut self,
        slot: &mut Slot,
        cgroup: &Path,
        netns: Namespace,
        settings: Result<Box<Config>, Refused>,
    ) -> anyhow::Result<()> {
        let number = self.next;
        self.next += 1;
        let in_force = settings.as_ref().ok().map(|config| config.settings.clone());
        let (purpose, served) = match settings {
            Ok(config) => {
                slot.refused = None;
                let origin = self.parts.accounts.origin(&slot.facts.service_account)?;
                let (wanted, served) = self.wanted(&slot.facts, &config, origin)?;
                (Purpose::Serve(Box::new(wanted)), Some(served))
            }
            Err(refused) => {
                tracing::error!(
                    outcome = "refused",
                    "{}: {}; its connections are refused until that is mended",
                    slot.facts,
                    refused.why
                );
                slot.refused = Some(refused);
                (Purpose::Close(Box::new(self.strict()?)), None)
            }
        };
        let start = Start {
            uid: slot.facts.uid.clone(),
            number,
            cgroup: cgroup.to_owned(),
            netns: netns.file.try_clone()?,
            beside: ThreadCgroup::new(&self.parts.own, number)?,
            bpffs: self.parts.config.bpffs.clone(),
            takes_over: !slot.is_elsewhere && self.is_last(),
            purpose,
            news: self.tell.clone(),
        };
        let lane = Lane::start(start, in_force.unwrap_or_default())?;
        slot.retry = None;
        slot.closed = None;
        // One that failed has yet to show that it does not do so again.
        if !slot.is_elsewhere && !matches!(slot.state, State::Failed(_)) {
            self.set(slot, State::Beginning);
        }
        slot.running = Some(Running {
            lane,
            netns,
            served,
            order: Order::Serve,
            is_captured: false,
            checked: Instant::now(),
        });
        Ok(())
    }

    /// How a pod is to be served, and what shows that.
    fn wanted(
        &self,
        facts: &PodFacts,
        config: &Config,
        origin: Origin,
    ) -> anyhow::Result<(Wanted, Served)> {
        let drain = Drain::default();
        let (traces, export) = self.parts.collector.map(Traces::to).unzip();
        let telemetry = Telemetry::new(telemetry::Options {
            access_log: self.parts.lines.log(config.access_log_choice.clone()),
            directory: self.parts.directory.clone(),
            labels: PodLabels {
                namespace: facts.namespace().into(),
                node: self.parts.node.as_str().into(),
                pod: facts.name.as_str().into(),
                service_account: facts.service_account.name.as_str().into(),
                workload: facts.workload.to_string().into(),
            },
            observing: config.observing.clone(),
            series: config.series,
            traces: traces.unwrap_or_default(),
        })?;
        // It goes on without us, and ends with the drain.
        let _exporting = export.map(|export| export.start(drain.clone()));
        let identity = tls::keep(origin, config.trust_files.clone(), telemetry.clone());
        let served = Served {
            telemetry: telemetry.clone(),
            identity: identity.clone(),
            drain: drain.clone(),
        };
        let wanted = Wanted {
            config: config.clone(),
            source: self.parts.source.clone(),
            telemetry,
            identity,
            drain,
        };
        Ok((wanted, served))
    }

    /// What a pod is closed by of which nobody knows how strict it is to be.
    fn strict(&self) -> anyhow::Result<Policy> {
        let strict = Settings {
            inbound: Some(Mode::Strict),
            outbound: Some(Mode::Strict),
            ..Settings::default()
        };
        Ok(self.parts.source.config(strict)?.policy)
    }
}
