//! How the agent of a node asks the Kubernetes API, and whom it believes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use sidecar_tests::{
    Process, Program,
    forge::Holder,
    kube_api::{Happening, PODS},
    node::{Agent, Driver, Node},
    sidecar, wait,
};

/// Where the API is with TLS, in the node's namespace.
const TLS: u16 = 6444;
/// The API without.
const PLAIN: u16 = 6443;

/// How long an agent may go on by a token that has been replaced: kube reads it again after 50 s.
const ROTATION: Duration = Duration::from_secs(90);

/// A node whose API is reached by TLS, and who vouches for it.
struct Cluster {
    node: Node,
    _tls: Process,
    root: Holder,
}

impl Cluster {
    fn new() -> Self {
        let node = Node::new();
        let root = Holder::root();
        let server = root.issue(|params| {
            let address = IpAddr::from(Ipv4Addr::LOCALHOST);
            params.subject_alt_names = vec![rcgen::SanType::IpAddress(address)];
        });
        let files = server.show(&[]).save(node.sandbox().directory(), "api");
        let listen = format!(
            "OPENSSL-LISTEN:{TLS},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={},key={}",
            files.certificate.display(),
            files.key.display()
        );
        let socat = Program::new(node.sandbox(), "/usr/bin/socat");
        let to = format!("TCP:127.0.0.1:{PLAIN}");
        let tls = socat.arg(listen).arg(to).listen(TLS);
        Self {
            node,
            _tls: tls,
            root,
        }
    }

    /// A service account that is told to trust this root, as the kubelet mounts it.
    fn account(&self, root: &Holder) -> PathBuf {
        let directory = self.node.sandbox().directory().join("account");
        fs::create_dir(&directory).expect("making a directory");
        let [(_, root), _] = root.dev_ca();
        fs::write(directory.join("ca.crt"), root).expect("writing a file");
        fs::write(directory.join("namespace"), "sidecar").expect("writing a file");
        fs::write(directory.join("token"), "first").expect("writing a file");
        directory
    }

    /// Starts an agent that has this service account, and is told no more.
    fn agent(&self, account: &Path) -> Agent {
        let mount = "d=/run/secrets/kubernetes.io/serviceaccount; mount -t tmpfs tmpfs /run && \
                     mkdir -p $d && mount --bind \"$0\" $d && exec \"$@\"";
        let unshare = Program::new(self.node.sandbox(), "/usr/bin/unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c"])
            .arg(mount)
            .arg(account)
            .arg(sidecar::binary())
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", TLS.to_string());
        let run = self.node.agent_without_kubeconfig(unshare);
        self.node.agent_of(run)
    }

    /// A kubeconfig of which the cluster is this.
    fn kubeconfig(&self, cluster: &serde_json::Value) -> PathBuf {
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let sandbox = self.node.sandbox();
        sandbox.file("cluster", content.to_string())
    }

    /// An agent by this kubeconfig, where the machine trusts nobody.
    fn agent_by(&self, kubeconfig: &Path) -> Program<'_> {
        let program = Program::new(self.node.sandbox(), sidecar::binary());
        let run = self.node.agent_without_kubeconfig(program);
        run.arg("--kubeconfig")
            .arg(kubeconfig)
            .env("SSL_CERT_FILE", "/nowhere")
            .env("SSL_CERT_DIR", "/nowhere")
    }
}

#[test]
fn an_agent_asks_by_its_service_account_also_when_the_token_is_renewed() {
    let cluster = Cluster::new();
    let node = &cluster.node;
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[]);
    let account = cluster.account(&cluster.root);
    let mut agent = cluster.agent(&account);
    agent.wait_for(&pod);
    assert_eq!(node.api.tokens(), ["Bearer first"]);
    // As the kubelet renews it: another file in its place.
    fs::write(account.join("new"), "second").expect("writing a file");
    fs::rename(account.join("new"), account.join("token")).expect("replacing a file");
    let renewed = wait::within(ROTATION, || {
        // A watch lasts for minutes otherwise.
        node.api.happens(PODS, Happening::End);
        std::thread::sleep(Duration::from_millis(500));
        node.api.tokens().get(1).cloned()
    });
    assert_eq!(renewed.as_deref(), Some("Bearer second"));
}

#[test]
fn an_agent_believes_nobody_for_whom_the_service_accounts_ca_does_not_vouch() {
    let cluster = Cluster::new();
    let pod = cluster.node.start_pod("web", Driver::Cgroupfs);
    cluster.node.enrol(&pod, &[]);
    let mut agent = cluster.agent(&cluster.account(&Holder::root()));
    agent.says("the Kubernetes API does not tell of pods of the node: it cannot be reached (invalid peer certificate");
    assert_eq!(cluster.node.api.requests(), [""; 0]);
    assert!(cluster.node.pins().is_empty());
}

#[test]
fn a_kubeconfig_without_a_ca_is_refused_where_the_machine_trusts_nobody_and_the_error_says_what_to_do()
 {
    let cluster = Cluster::new();
    let url = format!("https://127.0.0.1:{TLS}");
    let kubeconfig = cluster.kubeconfig(&json!({"server": url}));
    let refused = cluster.agent_by(&kubeconfig).run().code(1);
    let said = refused.stderr.lines().last().expect("it says why");
    for named in [&url, "names no CA", "certificate-authority-data"] {
        assert!(said.contains(named), "{named}: {said}");
    }
}

#[test]
fn a_kubeconfig_needs_no_ca_where_none_is_to_vouch() {
    let cluster = Cluster::new();
    let pod = cluster.node.start_pod("web", Driver::Cgroupfs);
    cluster.node.enrol(&pod, &[]);
    for server in [
        json!({"server": format!("http://127.0.0.1:{PLAIN}")}),
        json!({"server": format!("https://127.0.0.1:{TLS}"), "insecure-skip-tls-verify": true}),
    ] {
        let kubeconfig = cluster.kubeconfig(&server);
        let mut agent = cluster.node.agent_of(cluster.agent_by(&kubeconfig));
        agent.wait_for(&pod);
        agent.stop();
    }
}
