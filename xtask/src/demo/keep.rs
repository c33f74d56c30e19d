//! `--keep`: the stage stays for the audience to try.

use anyhow::Context as _;
use sidecar_tests::{Pod, cgroup::Container};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::stage::Stage;
use crate::nginx;

/// Ctrl-C and SIGTERM, caught so that nothing is left behind when they come: the programs in the
/// pods end by them, and the demo by the programs' end.
pub struct Interruption(Signals);

impl Interruption {
    /// Catches them from now on.
    pub fn catch() -> anyhow::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM]).context("cannot catch SIGINT and SIGTERM")?;
        Ok(Self(signals))
    }

    /// Waits for one of them.
    pub fn wait(mut self) {
        self.0.forever().next();
    }
}

/// Prints what to try while the stage stands.
pub fn invite(stage: &Stage) {
    let Stage { plain, pods, .. } = stage;
    let (client, server) = (&pods.client, &pods.server);
    let [in_client, in_server, in_plain] = [client, server, plain].map(entrance);
    let page = format!("http://{}/", nginx::address(server));
    let plain_page = format!("http://{}/", nginx::address(plain));
    let admin = "http://127.0.0.1:4195";
    println!(
        "Everything is still running. In another terminal, try

mutual TLS:
  {in_client} curl -i {page}
plaintext, from and to the pod without a sidecar:
  {in_plain} curl -i {page}
  {in_client} curl -i {plain_page}
what the sidecar of the server has logged, counted, and has open:
  cat {logs}/*-sidecar.stdout
  {in_server} curl {admin}/metrics
  {in_server} curl {admin}/connections
the wire:
  nsenter --net={network} tcpdump -A -n -i client tcp

Ctrl-C ends it and takes everything away.",
        logs = server.sandbox().directory().display(),
        network = pods.network.sandbox().namespace().path().display(),
    );
}

/// A script that runs a command as the app of `pod`.
fn entrance(pod: &Pod) -> String {
    let sandbox = pod.sandbox();
    let cgroup = sandbox.cgroup().path().join(Container::App.name());
    let script = format!(
        "#!/bin/sh\necho $$ > {}/cgroup.procs && exec nsenter --net={} \"$@\"\n",
        cgroup.display(),
        sandbox.namespace().path().display(),
    );
    let path = sandbox.file("run", script);
    format!("sh {}", path.display())
}
