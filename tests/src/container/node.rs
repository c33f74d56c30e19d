//! A node of a cluster that has no other.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use super::{
    engine::Engine,
    image,
    manifest::Manifest,
    pod::ContainerPod,
    volume::{Files, Offer},
};
use crate::{KubeApi, Network};

/// The port of the API, in the node's namespace.
const API: u16 = 6443;

/// Runs manifests. Its pods are on one network.
#[derive(Debug)]
pub struct Node {
    engine: Arc<Engine>,
    network: Arc<Network>,
    /// Knows every pod that was started here.
    api: KubeApi,
    bpffs: PathBuf,
    secrets: BTreeMap<String, Files>,
    /// The number of the next pod.
    next: AtomicU8,
}

impl Node {
    /// The image of every app: the machine's own programs, and nothing that was written while it ran.
    pub const APP_IMAGE: &str = "app";

    /// The image of the daemon under test, as manifests name it.
    pub const SIDECAR_IMAGE: &str = image::NAME;

    /// Makes a node that runs nothing.
    #[track_caller]
    pub fn new() -> Self {
        let network = Arc::new(Network::new());
        let engine = Arc::new(Engine::new(&network));
        image::provide(&engine);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, API));
        let api = KubeApi::start_on(Some(network.sandbox().namespace()), address);
        let bpffs = network.sandbox().directory().join("bpf");
        fs::create_dir(&bpffs).expect("making a directory");
        let none: Option<&str> = None;
        mount(none, &bpffs, Some("bpf"), MsFlags::empty(), none).expect("mounting a BPF fs");
        Self {
            engine,
            network,
            api,
            bpffs,
            secrets: BTreeMap::new(),
            next: AtomicU8::new(1),
        }
    }

    /// What joins the pods. Its namespace stands for the node's, from which probes come.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// What manifests see as the host's `/sys/fs/bpf`.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// A file that leads pods with the network of the node to its API.
    ///
    /// It names `ca.crt` beside it as the authority to trust, as a service account's does: a client
    /// wants one before it knows whether it will be shown a certificate, and the image has none.
    #[track_caller]
    pub fn kubeconfig(&self) -> Vec<u8> {
        let path = self.api.kubeconfig(self.network.sandbox().directory());
        let text = fs::read(path).expect("it was written just now");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        config["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt".into();
        config.to_string().into_bytes()
    }

    /// The containers that run now, as their pods' manifests name them.
    #[track_caller]
    pub fn running(&self) -> Vec<String> {
        let names = self.engine.podman(["ps", "--format", "{{.Names}}"]).stdout;
        let names = names
            .lines()
            .filter_map(|name| Some(name.rsplit_once('-')?.1));
        names.map(str::to_owned).collect()
    }

    /// Makes a secret, which pods that start from now on can mount.
    pub fn secret<'a>(&mut self, name: &str, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
        let files = files.into_iter();
        let files = files.map(|(name, content)| (name.to_owned(), content));
        self.secrets.insert(name.to_owned(), files.collect());
    }

    /// Starts a pod, and returns it when its init containers have ended, its sidecars have started, and
    /// every container that says when it is ready is ready.
    ///
    /// # Panics
    ///
    /// When it does not come to that; the message holds what its containers printed.
    #[track_caller]
    pub fn run(&self, manifest: &str) -> ContainerPod {
        let (pod, outcome) = self.try_run(manifest);
        if let Err(error) = outcome {
            panic!("{error}");
        }
        pod
    }

    /// Starts a pod that does not come up. Returns it with the name of the container that failed and
    /// what that has printed.
    #[track_caller]
    pub fn run_in_vain(&self, manifest: &str) -> (ContainerPod, String) {
        let (pod, outcome) = self.try_run(manifest);
        let error = outcome.expect_err("this pod should not have come up");
        (pod, error)
    }

    #[track_caller]
    fn try_run(&self, manifest: &str) -> (ContainerPod, Result<(), String>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let offer = Offer {
            bpffs: &self.bpffs,
            secrets: &self.secrets,
        };
        let manifest = Manifest::parse(manifest);
        let mut pod = ContainerPod::new(&self.engine, &self.network, number, manifest);
        self.api.put(pod.object());
        let outcome = pod.start(offer);
        (pod, outcome)
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}
