use std::path::Path;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use super::privileges;
use crate::{
    bpf::{Access, Datapath, Pins, Place, Rules, Size, removal},
    config::{self, Settings},
    logging,
    pod::{self, Cgroup},
};

/// Options of `sidecar init`.
#[derive(clap::Args, Debug)]
pub struct Init {
    #[command(flatten)]
    config: config::Args,

    /// The user that `sidecar run` runs as, who is given the maps [default: our own]
    #[arg(
        long,
        env = "SIDECAR_UID",
        value_name = "UID",
        help_heading = "Hand over"
    )]
    uid: Option<u32>,

    /// A group that `sidecar run` is in, which may use the maps as well
    #[arg(
        long,
        env = "SIDECAR_GID",
        value_name = "GID",
        help_heading = "Hand over"
    )]
    gid: Option<u32>,
}

impl Init {
    /// Attaches and pins everything, hands the maps over, and leaves: from then on the pod's
    /// connections are refused until a sidecar runs.
    pub fn run(self) -> anyhow::Result<()> {
        privileges::to_attach(
            "init",
            "run it as root, or give it CAP_BPF and CAP_NET_ADMIN",
        )?;
        let config = self.config.over(Settings::default()).load()?;
        let _messages = logging::init(&config.log, config.log_format);
        let cgroup = Cgroup::open_or_find(config.cgroup.as_deref())?;
        if let Some(netns) = &config.netns {
            pod::enter_netns(netns)?;
        }
        pod::ensure_bpffs(&config.bpffs)?;
        // Whoever stops us meanwhile is heard when nothing is half attached.
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_block()?;

        let place = Place::new(&cgroup).context("cannot open the pod's network namespace")?;
        let mut datapath = Datapath::load(place, Pins::of(&config.bpffs, &cgroup), Size::Declared)?;
        // Opened before they belong to somebody else.
        let mut tables = datapath.rules()?;
        datapath.hand_to(Access {
            uid: self.uid,
            gid: self.gid,
        })?;
        let own_addrs = pod::own_addresses();
        let rules = Rules {
            policy: &config.policy,
            own_addrs: &own_addrs,
        };
        // Whoever serves has rules of its own, and would not know that less is held than it asks for.
        if datapath.is_served()? {
            tables.tighten(&rules)?;
        } else {
            tables.apply(&rules)?;
        }
        datapath.follow()?;
        datapath.close()?;
        tracing::info!("{cgroup} is closed until a sidecar runs for it");
        sweep(&config.bpffs);
        Ok(())
    }
}

/// Removes what pods have left that are gone: of those closed by `init`, nobody else is there in the end who may.
fn sweep(bpffs: &Path) {
    match removal::remove_gone(bpffs) {
        Ok(removal) => {
            for pod in removal.pods {
                tracing::info!("removed {}, whose pod has gone", pod.display());
            }
            for failure in removal.failures {
                tracing::warn!("{failure}");
            }
        }
        Err(error) => tracing::warn!("{error}"),
    }
}
