use std::path::PathBuf;

use serde::Deserialize;

use super::{
    AccessLog, Config, Error, FederatedBundle, Handshakes, LogFilter, LogFormat, Observe, Peers,
    Share, Source, Timeout, Workers,
    value::{
        AdminAddress, Collector, Identity, KubernetesName, Reuse, TrustDomainName, Uid, WorkloadApi,
    },
};
use crate::{
    policy::{Authorization, Cidr, Expectations, Failure, Mode, ModeOverride, Naming, Port},
    telemetry::Kind,
};

/// The settings of a command, and the file that holds those the command line leaves out.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Args {
    /// A YAML file of settings; flags and environment variables win over it
    #[arg(long, env = "SIDECAR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What flags and the environment say.
    #[command(flatten)]
    pub settings: Settings,
}

impl Args {
    /// Reads the file, if one is named, and makes the whole into a [`Config`].
    ///
    /// Everything wrong is refused here, before anything is attached.
    pub fn load(self) -> Result<Config, Error> {
        self.over(Settings::default()).load()
    }

    /// These settings, over defaults of the command's own, to be read as often as they change.
    pub fn over(self, defaults: Settings) -> Source {
        Source::new(self, defaults)
    }
}

/// Everything that can be set, each setting in one field.
///
/// The field's name is the key in the file and the flag, with dashes; the environment variable is
/// `SIDECAR_` and the name in capitals. `None` stands for "not said here". The texts below are what
/// `--help` prints.
#[derive(clap::Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The pod's cgroup, a directory below the cgroup v2 mount [default: that of the pod we are in, else our own]
    #[arg(
        long,
        env = "SIDECAR_CGROUP",
        value_name = "PATH",
        help_heading = "Pod"
    )]
    pub cgroup: Option<PathBuf>,

    /// The pod's network namespace, such as /run/netns/NAME [default: our own]
    #[arg(long, env = "SIDECAR_NETNS", value_name = "PATH", help_heading = "Pod")]
    pub netns: Option<PathBuf>,

    /// How strict to be with clients of the workload [default: permissive]
    #[arg(
        long,
        env = "SIDECAR_INBOUND",
        value_name = "MODE",
        help_heading = "Policy"
    )]
    pub inbound: Option<Mode>,

    /// How strict to be with servers the workload dials [default: permissive]
    #[arg(
        long,
        env = "SIDECAR_OUTBOUND",
        value_name = "MODE",
        help_heading = "Policy"
    )]
    pub outbound: Option<Mode>,

    /// What happens to clients of the workload while no sidecar serves [default: closed]
    #[arg(
        long,
        env = "SIDECAR_INBOUND_FAILURE",
        value_name = "FAILURE",
        help_heading = "Policy"
    )]
    pub inbound_failure: Option<Failure>,

    /// What happens to connections of the workload while no sidecar serves [default: closed]
    #[arg(
        long,
        env = "SIDECAR_OUTBOUND_FAILURE",
        value_name = "FAILURE",
        help_heading = "Policy"
    )]
    pub outbound_failure: Option<Failure>,

    /// Another mode for one port or range: DIRECTION[,cidr=RANGE][,port=PORT],mode=MODE.
    /// Repeatable; in one value, separated by semicolons
    #[arg(
        long = "override",
        env = "SIDECAR_OVERRIDES",
        value_name = "OVERRIDE",
        value_delimiter = ';',
        help_heading = "Policy"
    )]
    pub overrides: Option<Vec<ModeOverride>>,

    /// Ports of the workload that the kernel leaves alone
    #[arg(
        long,
        env = "SIDECAR_EXCLUDE_INBOUND_PORTS",
        value_name = "PORT,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub exclude_inbound_ports: Option<Vec<Port>>,

    /// Destination ports that the kernel leaves alone
    #[arg(
        long,
        env = "SIDECAR_EXCLUDE_OUTBOUND_PORTS",
        value_name = "PORT,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub exclude_outbound_ports: Option<Vec<Port>>,

    /// Destination addresses that the kernel leaves alone
    #[arg(
        long,
        env = "SIDECAR_EXCLUDE_OUTBOUND_CIDRS",
        value_name = "CIDR,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub exclude_outbound_cidrs: Option<Vec<Cidr>>,

    /// Users whose outbound connections the kernel leaves alone, by number
    #[arg(
        long,
        env = "SIDECAR_EXCLUDE_UIDS",
        value_name = "UID,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub exclude_uids: Option<Vec<Uid>>,

    /// Ports of the workload on which the sources of probes may ask in plaintext, past the sidecar
    #[arg(
        long,
        env = "SIDECAR_PROBE_PORTS",
        value_name = "PORT,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub probe_ports: Option<Vec<Port>>,

    /// Where probes come from, as the workload sees it: the node's addresses [default: nowhere]
    #[arg(
        long,
        env = "SIDECAR_PROBE_SOURCES",
        value_name = "CIDR,…",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub probe_sources: Option<Vec<Cidr>>,

    /// What happens where a server proves another identity than the cluster names for its address
    /// [default: strict]
    #[arg(
        long,
        env = "SIDECAR_NAMING",
        value_name = "NAMING",
        help_heading = "Policy"
    )]
    pub naming: Option<Naming>,

    /// Who may reach the workload. It takes more than a flag can say, so it stands in the file only.
    #[arg(skip)]
    pub authorization: Option<Authorization>,

    /// Who must answer when the workload dials. It stands in the file only, too.
    #[arg(skip)]
    pub expect: Option<Expectations>,

    /// The workload's X.509-SVID, a PEM file; needs --key and --trust-bundle
    #[arg(
        long,
        env = "SIDECAR_CERTIFICATE",
        value_name = "FILE",
        help_heading = "Identity"
    )]
    pub certificate: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(
        long,
        env = "SIDECAR_KEY",
        value_name = "FILE",
        help_heading = "Identity"
    )]
    pub key: Option<PathBuf>,

    /// The roots that peers must chain to, a PEM file
    #[arg(
        long,
        env = "SIDECAR_TRUST_BUNDLE",
        value_name = "FILE",
        help_heading = "Identity"
    )]
    pub trust_bundle: Option<PathBuf>,

    /// The socket of the SPIFFE Workload API to take the identity from: unix:PATH [default: the
    /// one that the environment names, as SPIFFE has it]
    #[arg(
        long,
        env = "SIDECAR_WORKLOAD_API",
        value_name = "SOCKET",
        help_heading = "Identity"
    )]
    pub workload_api: Option<WorkloadApi>,

    /// Other trust domains to trust, each by the roots in a PEM file: DOMAIN=FILE
    #[arg(
        long,
        env = "SIDECAR_FEDERATED_BUNDLES",
        value_name = "DOMAIN=FILE,…",
        value_delimiter = ',',
        help_heading = "Identity"
    )]
    pub federated_bundles: Option<Vec<FederatedBundle>>,

    /// Certificate revocation lists to refuse peers by, in PEM files
    #[arg(
        long,
        env = "SIDECAR_CRL",
        value_name = "FILE,…",
        value_delimiter = ',',
        help_heading = "Identity"
    )]
    pub crl: Option<Vec<PathBuf>>,

    /// Of many workloads, for `sidecar node`: a directory of PEM files, as
    /// NAMESPACE/SERVICE-ACCOUNT/tls.crt, tls.key and ca.crt
    #[arg(
        long,
        env = "SIDECAR_IDENTITIES",
        value_name = "DIR",
        help_heading = "Identity"
    )]
    pub identities: Option<PathBuf>,

    /// The trust domain of identities that are made of names [default: sidecar.local]
    #[arg(
        long,
        env = "SIDECAR_TRUST_DOMAIN",
        value_name = "DOMAIN",
        help_heading = "Identity"
    )]
    pub trust_domain: Option<TrustDomainName>,

    /// Without files: the directory of the development CA [default: /var/lib/sidecar/dev-ca]
    #[arg(
        long,
        env = "SIDECAR_DEV_CA",
        value_name = "DIR",
        help_heading = "Identity"
    )]
    pub dev_ca: Option<PathBuf>,

    /// Without files: the identity that the development CA issues [default: one made of the
    /// host name]
    #[arg(
        long,
        env = "SIDECAR_IDENTITY",
        value_name = "SPIFFE_ID",
        help_heading = "Identity"
    )]
    pub identity: Option<Identity>,

    /// Where metrics and health are served [default: 127.0.0.1:4195]
    #[arg(
        long,
        env = "SIDECAR_ADMIN",
        value_name = "ADDRESS:PORT",
        help_heading = "Telemetry"
    )]
    pub admin: Option<AdminAddress>,

    /// Lines about connections: how they look [default: text]
    #[arg(
        long,
        env = "SIDECAR_ACCESS_LOG",
        value_name = "FORMAT",
        help_heading = "Telemetry"
    )]
    pub access_log: Option<AccessLog>,

    /// What the access log has lines about: opened, closed, denied, failed, request
    /// [default: closed,denied,failed]
    #[arg(
        long,
        env = "SIDECAR_ACCESS_LOG_EVENTS",
        value_name = "EVENT,…",
        value_delimiter = ',',
        hide_possible_values = true,
        help_heading = "Telemetry"
    )]
    pub access_log_events: Option<Vec<Kind>>,

    /// The file that the access log is appended to [default: standard output]
    #[arg(
        long,
        env = "SIDECAR_ACCESS_LOG_FILE",
        value_name = "FILE",
        help_heading = "Telemetry"
    )]
    pub access_log_file: Option<PathBuf>,

    /// The share of connections that the access log has lines about, 0 to 1; denied and failed
    /// ones are always told [default: 1]
    #[arg(
        long,
        env = "SIDECAR_ACCESS_LOG_SAMPLING",
        value_name = "SHARE",
        help_heading = "Telemetry"
    )]
    pub access_log_sampling: Option<Share>,

    /// Follow HTTP and gRPC as they pass by, to count and log requests [default: on]
    #[arg(
        long,
        env = "SIDECAR_OBSERVE",
        value_name = "SWITCH",
        help_heading = "Telemetry"
    )]
    pub observe: Option<Observe>,

    /// Ports of servers whose connections are not looked into, of the workload or elsewhere
    #[arg(
        long,
        env = "SIDECAR_OPAQUE_PORTS",
        value_name = "PORT,…",
        value_delimiter = ',',
        help_heading = "Telemetry"
    )]
    pub opaque_ports: Option<Vec<Port>>,

    /// Peers that metrics tell apart; more are counted together [default: 1000]
    #[arg(
        long,
        env = "SIDECAR_MAX_PEERS",
        value_name = "COUNT",
        help_heading = "Telemetry"
    )]
    pub max_peers: Option<Peers>,

    /// How long metrics show a peer that has no open connection any more [default: 10m]
    #[arg(
        long,
        env = "SIDECAR_FORGET_PEERS_AFTER",
        value_name = "TIME",
        help_heading = "Telemetry"
    )]
    pub forget_peers_after: Option<Timeout>,

    /// The pod's name, a label of metrics
    #[arg(
        long,
        env = "SIDECAR_POD_NAME",
        value_name = "NAME",
        help_heading = "Telemetry"
    )]
    pub pod_name: Option<KubernetesName>,

    /// The pod's namespace, a label of metrics
    #[arg(
        long,
        env = "SIDECAR_POD_NAMESPACE",
        value_name = "NAME",
        help_heading = "Telemetry"
    )]
    pub pod_namespace: Option<KubernetesName>,

    /// The pod's service account, a label of metrics
    #[arg(
        long,
        env = "SIDECAR_POD_SERVICE_ACCOUNT",
        value_name = "NAME",
        help_heading = "Telemetry"
    )]
    pub pod_service_account: Option<KubernetesName>,

    /// What the pod belongs to, such as deployment/web, a label of metrics
    #[arg(
        long,
        env = "SIDECAR_POD_WORKLOAD",
        value_name = "KIND/NAME",
        help_heading = "Telemetry"
    )]
    pub pod_workload: Option<KubernetesName>,

    /// The node that the pod is on, a label of metrics
    #[arg(
        long,
        env = "SIDECAR_NODE_NAME",
        value_name = "NAME",
        help_heading = "Telemetry"
    )]
    pub node_name: Option<KubernetesName>,

    /// Our own messages on standard error: a level, or TARGET=LEVEL,… [default: info]
    #[arg(
        long,
        env = "SIDECAR_LOG",
        value_name = "LEVEL",
        help_heading = "Telemetry"
    )]
    pub log: Option<LogFilter>,

    /// How our own messages are written [default: text]
    #[arg(
        long,
        env = "SIDECAR_LOG_FORMAT",
        value_name = "FORMAT",
        help_heading = "Telemetry"
    )]
    pub log_format: Option<LogFormat>,

    /// The collector that spans of traced requests go to, by OTLP over gRPC: http://HOST:PORT
    #[arg(
        long,
        env = "SIDECAR_TRACES",
        value_name = "URL",
        help_heading = "Telemetry"
    )]
    pub traces: Option<Collector>,

    /// How long connecting to an upstream may take [default: 10s]
    #[arg(
        long,
        env = "SIDECAR_CONNECT_TIMEOUT",
        value_name = "TIME",
        help_heading = "Limits"
    )]
    pub connect_timeout: Option<Timeout>,

    /// How long a TLS handshake may take [default: 10s]
    #[arg(
        long,
        env = "SIDECAR_HANDSHAKE_TIMEOUT",
        value_name = "TIME",
        help_heading = "Limits"
    )]
    pub handshake_timeout: Option<Timeout>,

    /// Connections of each direction that may be in the making at once; more are reset
    /// [default: 4096]
    #[arg(
        long,
        env = "SIDECAR_MAX_HANDSHAKES",
        value_name = "COUNT",
        help_heading = "Limits"
    )]
    pub max_handshakes: Option<Handshakes>,

    /// How long connections are held until the first identity has come [default: 30s]
    #[arg(
        long,
        env = "SIDECAR_IDENTITY_TIMEOUT",
        value_name = "TIME",
        help_heading = "Limits"
    )]
    pub identity_timeout: Option<Timeout>,

    /// How long a connection to another sidecar is kept for the next one to the same destination, or
    /// `off` [default: 10s]
    #[arg(
        long,
        env = "SIDECAR_REUSE",
        value_name = "TIME",
        help_heading = "Limits"
    )]
    pub reuse: Option<Reuse>,

    /// How long open connections may go on after we were told to stop [default: 5s]
    #[arg(
        long,
        env = "SIDECAR_DRAIN_TIMEOUT",
        value_name = "TIME",
        help_heading = "Limits"
    )]
    pub drain_timeout: Option<Timeout>,

    /// Threads that carry connections, 1 to 1024 [default: one per core]
    #[arg(
        long,
        env = "SIDECAR_WORKERS",
        value_name = "COUNT",
        help_heading = "Limits"
    )]
    pub workers: Option<Workers>,

    /// Where the BPF file system is, or is to be mounted [default: /sys/fs/bpf]
    #[arg(
        long,
        env = "SIDECAR_BPFFS",
        value_name = "PATH",
        help_heading = "Kernel"
    )]
    pub bpffs: Option<PathBuf>,
}

/// What is done with each setting, one by one. A setting that is missing here does not compile.
macro_rules! each {
    ($($setting:ident),+ $(,)?) => {
        impl Settings {
            /// These settings, and those of `below` where these say nothing. A list is taken whole.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self { $($setting: self.$setting.or(below.$setting),)+ }
            }

            /// The keys of settings that are not what they are in `other`.
            pub fn differing(&self, other: &Self) -> Vec<String> {
                let differs = [$((stringify!($setting), self.$setting != other.$setting),)+];
                differs
                    .into_iter()
                    .filter(|(_, differs)| *differs)
                    .map(|(name, _)| name.replace('_', "-"))
                    .collect()
            }
        }
    };
}

each!(
    access_log,
    access_log_events,
    access_log_file,
    access_log_sampling,
    admin,
    authorization,
    bpffs,
    certificate,
    cgroup,
    connect_timeout,
    crl,
    dev_ca,
    drain_timeout,
    exclude_inbound_ports,
    exclude_outbound_cidrs,
    exclude_outbound_ports,
    exclude_uids,
    expect,
    federated_bundles,
    forget_peers_after,
    handshake_timeout,
    identities,
    identity,
    identity_timeout,
    inbound,
    inbound_failure,
    key,
    log,
    log_format,
    max_handshakes,
    max_peers,
    naming,
    netns,
    node_name,
    observe,
    opaque_ports,
    outbound,
    outbound_failure,
    overrides,
    pod_name,
    pod_namespace,
    pod_service_account,
    pod_workload,
    probe_ports,
    probe_sources,
    reuse,
    traces,
    trust_bundle,
    trust_domain,
    workers,
    workload_api,
);
