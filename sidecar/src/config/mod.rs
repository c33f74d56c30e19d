//! Everything a user can set.
//!
//! [`Settings`] is the one place that names a setting: its flag, its key in the file and its
//! environment variable come from one field. [`Config`] is what remains once they are read: typed,
//! complete, and impossible to hold when anything was wrong.

mod error;
mod file;
mod hostname;
mod settings;
mod source;
mod value;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use spiffe::TrustDomain;

use self::hostname::Hostname;
pub use self::{
    error::Error,
    settings::{Args, Settings},
    source::Source,
    value::{
        AccessLog, AdminAddress, FederatedBundle, Handshakes, LogFilter, LogFormat, Observe, Peers,
        Share, Timeout, TrustDomainName, Workers, WorkloadApi,
    },
};
use crate::{
    identity,
    policy::{Cidr, Direction, Exclusions, Failure, Mode, ModeTable, Policy, Port, Probes},
    proxy::Limits,
    telemetry::{self, Choice, Observing, PodLabels, SeriesLimits},
};

/// Where the admin endpoint listens when nothing else is said.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4195);
/// Where the BPF file system is expected.
const BPFFS: &str = "/sys/fs/bpf";
/// Where the development CA keeps its root.
const DEV_CA: &str = "/var/lib/sidecar/dev-ca";

/// The trust domain of identities that are made of names.
const TRUST_DOMAIN: &str = "sidecar.local";

/// Where SPIFFE has workloads look for the Workload API (SPIFFE Workload Endpoint section 4).
const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// What the daemon does, with every setting read and every default filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the lines of the access log look.
    pub access_log: AccessLog,
    /// Which lines there are.
    pub access_log_choice: Choice,
    /// Where they go, if not to standard output.
    pub access_log_file: Option<PathBuf>,
    /// Where the admin endpoint listens, inside the pod's network namespace.
    pub admin: SocketAddr,
    /// Where the BPF file system is, or is to be mounted.
    pub bpffs: PathBuf,
    /// The pod's cgroup: a directory below the mount of the version 2 hierarchy. The daemon's own
    /// when none is named.
    pub cgroup: Option<PathBuf>,
    /// How long open connections may go on after the daemon was told to stop.
    pub drain_timeout: Duration,
    /// Where the workload's identity comes from.
    pub identity: identity::Origin,
    /// Files that say whom else to trust, and whom no longer.
    pub trust_files: identity::TrustFiles,
    /// How many connections may be in the making, and how long they may take.
    pub limits: Limits,
    /// Which pod it is, for metrics and logs.
    pub labels: PodLabels,
    /// Which of the daemon's own messages are logged on standard error, as a filter for `tracing`.
    pub log: String,
    /// How the daemon's own messages are written.
    pub log_format: LogFormat,
    /// The pod's network namespace, as a path such as `/run/netns/NAME`. The daemon's own when
    /// none is named.
    pub netns: Option<PathBuf>,
    /// Which connections are watched for what they say.
    pub observing: Observing,
    /// What connections need, and who may open them.
    pub policy: Policy,
    /// How many peers metrics tell apart, and for how long.
    pub series: SeriesLimits,
    /// What all of this was made of.
    pub settings: Settings,
    /// Where spans go, if anywhere.
    pub traces: Option<telemetry::Collector>,
    /// The trust domain of identities that are made of names: of service accounts, or the machine's.
    pub trust_domain: TrustDomain,
    /// Threads that carry connections.
    pub workers: usize,
}

impl TryFrom<Settings> for Config {
    type Error = Error;

    /// Of a process that may read the machine's name. One that is confined has a [`Source`].
    fn try_from(settings: Settings) -> Result<Self, Error> {
        Self::new(settings, &Hostname::read())
    }
}

impl Config {
    /// Fills in every default, on a machine of this name.
    #[expect(
        clippy::too_many_lines,
        reason = "every setting is named once to take the whole apart, and once to use it"
    )]
    fn new(settings: Settings, hostname: &Hostname) -> Result<Self, Error> {
        let whole = settings.clone();
        // Without `..`: a setting that is added and then forgotten here does not compile.
        let Settings {
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
        } = settings;

        let overrides = overrides.unwrap_or_default();
        let expectations = expect.unwrap_or_default();
        let modes = |direction, default: Option<_>| {
            ModeTable::new(direction, default.unwrap_or_default(), &overrides)
        };
        for (direction, mode, failure) in [
            (Direction::Inbound, inbound, inbound_failure),
            (Direction::Outbound, outbound, outbound_failure),
        ] {
            if (mode, failure) == (Some(Mode::Strict), Some(Failure::Open)) {
                return Err(Error::FailureOpen { direction });
            }
        }
        let choice = Choice::default();
        let trust_domain = own_domain(trust_domain, identity.as_ref())?;
        let policy = Policy {
            inbound: modes(Direction::Inbound, inbound)?,
            inbound_failure: inbound_failure.unwrap_or_default(),
            outbound_failure: outbound_failure.unwrap_or_default(),
            outbound: modes(Direction::Outbound, outbound)?.expecting(&expectations)?,
            exclusions: Exclusions {
                inbound_ports: all(exclude_inbound_ports).map(Port::number).collect(),
                outbound_cidrs: all(exclude_outbound_cidrs).flat_map(Cidr::nets).collect(),
                outbound_ports: all(exclude_outbound_ports).map(Port::number).collect(),
                uids: all(exclude_uids).map(|uid| uid.0).collect(),
            },
            probes: Probes {
                ports: all(probe_ports).map(Port::number).collect(),
                sources: all(probe_sources).flat_map(Cidr::nets).collect(),
            },
            authorization,
            expectations,
            naming: naming.unwrap_or_default(),
        };
        policy.fits()?;

        Ok(Self {
            access_log: access_log.unwrap_or_default(),
            access_log_choice: Choice {
                events: access_log_events.unwrap_or(choice.events),
                share: access_log_sampling.map_or(choice.share, Share::number),
            },
            access_log_file,
            admin: admin.map_or(ADMIN, |admin| admin.0),
            bpffs: bpffs.unwrap_or_else(|| BPFFS.into()),
            cgroup,
            drain_timeout: time(drain_timeout, Timeout::DRAIN),
            identity: IdentitySettings {
                certificate,
                key,
                trust_bundle,
                workload_api,
                identities,
                dev_ca,
                identity,
            }
            .origin(env::var_os(ENDPOINT), hostname, &trust_domain)?,
            limits: Limits {
                connect: time(connect_timeout, Timeout::CONNECT),
                handshake: time(handshake_timeout, Timeout::HANDSHAKE),
                handshakes: max_handshakes.unwrap_or_default().number(),
                identity: time(identity_timeout, Timeout::IDENTITY),
                reuse: reuse.unwrap_or_default().duration(),
            },
            labels: PodLabels {
                namespace: name(pod_namespace),
                node: name(node_name),
                pod: name(pod_name),
                service_account: name(pod_service_account),
                workload: name(pod_workload),
            },
            trust_files: identity::TrustFiles {
                federated: federated(federated_bundles.unwrap_or_default())?,
                crls: crl.unwrap_or_default(),
            },
            log: log.unwrap_or_default().to_string(),
            log_format: log_format.unwrap_or_default(),
            netns,
            observing: Observing {
                is_off: observe == Some(Observe::Off),
                opaque_ports: all(opaque_ports).map(Port::number).collect(),
            },
            policy,
            series: SeriesLimits {
                most: max_peers.unwrap_or_default().number(),
                forget_after: time(forget_peers_after, Timeout::FORGET_PEERS),
            },
            settings: whole,
            traces: traces.map(|collector| collector.0),
            trust_domain,
            workers: workers.unwrap_or_default().number(),
        })
    }
}

/// A time, if there is one, or else the default.
fn time(set: Option<Timeout>, default: Timeout) -> Duration {
    set.unwrap_or(default).duration()
}

/// A name, if there is one; else empty.
fn name(set: Option<value::KubernetesName>) -> Arc<str> {
    set.map_or_else(Arc::default, |name| name.0)
}

/// What a list says, if it says anything.
fn all<T>(list: Option<Vec<T>>) -> impl Iterator<Item = T> {
    list.into_iter().flatten()
}

/// The settings that name a source of identities.
struct IdentitySettings {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    trust_bundle: Option<PathBuf>,
    workload_api: Option<WorkloadApi>,
    identities: Option<PathBuf>,
    dev_ca: Option<PathBuf>,
    identity: Option<value::Identity>,
}

impl IdentitySettings {
    /// The one source that they name. When they name none, it is the Workload API that the
    /// environment names (SPIFFE Workload Endpoint section 4), or else the development CA.
    fn origin(
        self,
        endpoint: Option<OsString>,
        hostname: &Hostname,
        trust_domain: &TrustDomain,
    ) -> Result<identity::Origin, Error> {
        let named =
            |set: &[(&'static str, bool)]| set.iter().find(|(_, set)| *set).map(|(name, _)| *name);
        let files = named(&[
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("trust-bundle", self.trust_bundle.is_some()),
        ]);
        let api = named(&[("workload-api", self.workload_api.is_some())]);
        let many = named(&[("identities", self.identities.is_some())]);
        let dev = named(&[
            ("dev-ca", self.dev_ca.is_some()),
            ("identity", self.identity.is_some()),
        ]);
        let mut sources = [files, api, many, dev].into_iter().flatten();
        if let (Some(one), Some(other)) = (sources.next(), sources.next()) {
            return Err(Error::IdentityAmbiguous { one, other });
        }

        let missing = |missing| Error::IdentityIncomplete { missing };
        if files.is_some() {
            return Ok(identity::Origin::Files(identity::Files {
                certificate: self.certificate.ok_or(missing("certificate"))?,
                key: self.key.ok_or(missing("key"))?,
                trust_bundle: self.trust_bundle.ok_or(missing("trust-bundle"))?,
            }));
        }
        if let Some(WorkloadApi(socket)) = self.workload_api {
            return Ok(identity::Origin::WorkloadApi(socket));
        }
        if let Some(dir) = self.identities {
            return Ok(identity::Origin::Accounts(dir));
        }
        if dev.is_none()
            && let Some(endpoint) = endpoint
        {
            let endpoint = endpoint.to_string_lossy();
            let WorkloadApi(socket) = endpoint.parse().map_err(Error::EndpointSocket)?;
            return Ok(identity::Origin::WorkloadApi(socket));
        }

        Ok(identity::Origin::DevCa {
            dir: self.dev_ca.unwrap_or_else(|| DEV_CA.into()),
            id: match self.identity {
                Some(identity) => identity.0,
                None => hostname.identity(trust_domain)?,
            },
        })
    }
}

/// The trust domain that is named, or that of the identity that is, or the default.
fn own_domain(
    named: Option<TrustDomainName>,
    identity: Option<&value::Identity>,
) -> Result<TrustDomain, Error> {
    let of_identity = identity.map(|identity| identity.0.trust_domain().clone());
    match (named.map(|named| named.0), of_identity) {
        (Some(named), Some(other)) if named != other => Err(Error::TrustDomains { named, other }),
        (Some(domain), _) | (None, Some(domain)) => Ok(domain),
        (None, None) => Ok(TrustDomain::new(TRUST_DOMAIN).expect("the default is a name")),
    }
}

/// The bundle of each trust domain, of which there may be one.
fn federated(bundles: Vec<FederatedBundle>) -> Result<BTreeMap<TrustDomain, PathBuf>, Error> {
    let mut federated = BTreeMap::new();
    for FederatedBundle { trust_domain, file } in bundles {
        if let Some(other) = federated.insert(trust_domain.0.clone(), file.clone()) {
            return Err(Error::FederatedTwice {
                trust_domain: trust_domain.0,
                files: [other, file],
            });
        }
    }
    Ok(federated)
}

#[cfg(test)]
mod tests;
