//! `sidecar validate`: proves inside a pod that its connections go through the sidecar.
//!
//! It connects to itself at the pod's own address: out through the sidecar and in through the
//! sidecar, if all is well. Both ends of that connection are its own, so it can compare what the
//! kernel says of them with what it asked for. It takes no privilege, and no help of the daemon.

mod attempt;
mod table;
mod verdict;
mod wanted;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep_until, timeout_at},
};

use self::{attempt::Attempt, verdict::Trouble, wanted::Wanted};
use crate::{
    config::{self, Settings, Timeout},
    pod,
};

/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// Options of `sidecar validate`.
#[derive(clap::Args, Debug)]
pub struct Validate {
    /// How long to keep trying, for the sidecar may yet come
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Timeout,

    #[command(flatten)]
    config: config::Args,
}

impl Validate {
    /// Tries until it is proven, or the time is over.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.over(Settings::default()).load()?;
        let wanted = Wanted::new(&config.policy, nix::unistd::getuid().as_raw());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        runtime.block_on(validate(&wanted, self.timeout.duration()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Tries again and again, for each family of addresses that the pod has.
async fn validate(wanted: &Wanted<'_>, patience: Duration) -> anyhow::Result<()> {
    wanted.check()?;
    let deadline = Instant::now() + patience;
    let mut proven = Vec::<IpAddr>::new();
    let (mut said, mut reported) = (None, None);
    loop {
        let pause = Instant::now() + PAUSE;
        let own = own_addresses();
        let mut trouble = own.is_empty().then_some((None, Trouble::NoAddress));
        for address in own {
            if proven.contains(&address) {
                continue;
            }
            let attempt = Attempt::new(address, wanted);
            // Whatever is under way at the end has not come to anything.
            let outcome = timeout_at(deadline, attempt.make()).await;
            match outcome.unwrap_or(Err(Trouble::Late)) {
                Ok(proof) => {
                    println!("{address}: {proof}");
                    proven.push(address);
                }
                Err(found) => trouble = trouble.or(Some((Some(address), found))),
            }
        }
        let Some(found) = trouble else {
            return Ok(());
        };
        // That the time is over is no news of what is wrong.
        let found = match (found, said.take()) {
            ((_, Trouble::Late), Some(before)) => before,
            (found, _) => found,
        };
        let (address, trouble) = &found;
        let at = address
            .map(|address| format!(" at {address}"))
            .unwrap_or_default();
        if Instant::now() >= deadline {
            bail!(
                "gave up after {patience:?}: {trouble}{at}; {}",
                trouble.remedy()
            );
        }
        if reported.as_ref() != Some(&found) {
            eprintln!("sidecar: waiting, because {trouble}{at}");
            reported = Some(found.clone());
        }
        said = Some(found);
        sleep_until(pause.min(deadline)).await;
    }
}

/// One address of the pod for each family that it has.
fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = Vec::<IpAddr>::new();
    for (_, address) in pod::own_addresses() {
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if !is_link_local
            && !address.is_loopback()
            && !addresses
                .iter()
                .any(|known| known.is_ipv4() == address.is_ipv4())
        {
            addresses.push(address);
        }
    }
    addresses
}

/// As the pod says it, whatever the form that the kernel has it in.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
