//! `cargo xtask demo`

mod evidence;
mod keep;
mod scene;
mod stage;
mod table;

use anyhow::bail;

use crate::{build, command::step, setup};

/// Show two pods talk mutual TLS while their apps know nothing of it
#[derive(clap::Args)]
pub struct Options {
    /// Leave everything running until you say so, and print what to try
    #[arg(long)]
    keep: bool,
}

/// What runs in the demo, by path and Debian package.
const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/iptables-save", "iptables"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/nginx", "nginx-light"),
];

pub fn run(Options { keep }: Options) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces and loads kernel programs: run it as root");
    }
    setup::programs(&PROGRAMS)?;
    build::run(build::Options::default())?;
    let interruption = keep::Interruption::catch()?;
    let (mut pods, direct) = step("make two pods and time requests between them", || {
        Ok(stage::plain())
    })?;
    let stage = step("give each a sidecar, and make a third pod without", || {
        stage::mesh(&mut pods);
        Ok(stage::Stage::new(pods))
    })?;
    let evidence = step("let curl and nginx talk, and watch", || {
        Ok(scene::play(&stage, &direct))
    })?;
    println!("\nPods client and server have a sidecar each, pod plain has none:\n");
    println!("{}", table::of(&evidence));
    if keep {
        keep::invite(&stage);
        interruption.wait();
    }
    step("take everything away", || {
        drop(stage);
        Ok(())
    })?;
    let missing = evidence.iter().filter(|evidence| !evidence.holds).count();
    if missing > 0 {
        bail!("{missing} of {} claims do not hold", evidence.len());
    }
    Ok(())
}
