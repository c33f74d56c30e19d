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
    let page = nginx::address(server);
    println!(
        "Everything is still running. Try, in another terminal:

  {in_client} curl -i http://{page}/          # mutual TLS
  {in_plain} curl -i http://{page}/           # plaintext: this pod has no sidecar
  {in_client} curl -i http://{plain}/          # plaintext, the other way
  {in_server} curl -s http://127.0.0.1:4195/metrics
  {in_server} curl -s http://127.0.0.1:4195/connections
  nsenter --net={network} tcpdump -A -ni client tcp port {port}   # the wire

Ctrl-C ends it and takes everything away.",
        plain = nginx::address(plain),
        network = pods.network.sandbox().namespace().path().display(),
        port = page.port(),
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
