//! What a cluster says of itself, for `sidecar check --kubernetes`. It is asked once, and nothing is
//! changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use hyper::{Request, header::DATE};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::DaemonSet,
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        SubjectAccessReview, SubjectAccessReviewSpec,
    },
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod},
};
use kube::{
    Api, Client, Config, Error, Resource,
    api::{ListParams, PostParams},
    client::Body,
};
use serde::de::DeserializeOwned;
use x509_parser::{pem::Pem, prelude::X509Certificate};

use super::LABEL;

/// How long the API may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of how many objects each answer may be.
const PAGE: u32 = 500;

/// Something that the API said, or why it did not.
pub type Said<T> = Result<T, String>;

/// What a cluster says of itself.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Where the API is.
    pub server: String,
    /// Which version it has.
    pub version: Said<Version>,
    /// How far its clock is ahead of ours; `None` if it does not tell the time.
    pub ahead: Option<SignedDuration>,
    /// The nodes.
    pub nodes: Said<Vec<NodeFacts>>,
    /// When each node has last said that it lives, by its own clock, against the API's: how far ahead.
    pub heartbeats: Said<Vec<(String, SignedDuration)>>,
    /// The namespaces in which pods ask for a sidecar of their own, or that were named.
    pub namespaces: Said<Vec<NamespaceFacts>>,
    /// The settings of Cilium, if it is there.
    pub cilium: Said<Option<Cilium>>,
    /// The agent of nodes, if it is installed.
    pub agent: Said<Option<AgentFacts>>,
    /// What the agent needs to ask, and whether it may.
    pub rights: Said<Rights>,
    /// The webhooks that inject sidecars.
    pub webhooks: Said<Vec<WebhookFacts>>,
}

/// A version of Kubernetes: 1.29 is `(1, 29)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    /// To compare.
    pub number: (u32, u32),
    /// As it calls itself, such as `v1.29.3`.
    pub text: String,
}

impl Version {
    /// Reads `v1.29.3-gke.1`, and whatever else begins so.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str| {
            let end = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part.get(..end)?.parse::<u32>().ok()
        };
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        Some(Self {
            number: (digits(parts.next()?)?, digits(parts.next()?)?),
            text: text.to_owned(),
        })
    }
}

/// A node, as its kubelet describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// The release of its kernel.
    pub kernel: String,
    /// The version of its kubelet.
    pub kubelet: String,
    /// `amd64`, `arm64` and so on.
    pub architecture: String,
    /// `linux` or `windows`.
    pub system: String,
}

/// A namespace, and which pods may be made in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its Pod Security Standard: `privileged`, `baseline` or `restricted`, if it is labelled.
    pub enforced: Option<String>,
    /// Whether it is there at all.
    pub exists: bool,
}

/// Whose `connect()` Cilium translates the addresses of services in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cilium {
    /// Nobody's: it does so per packet, if at all.
    PerPacket,
    /// That of programs of the host.
    OfHost,
    /// That of pods, too.
    OfPods,
}

impl Cilium {
    /// What the data of its `ConfigMap` mean.
    fn new(data: &BTreeMap<String, String>) -> Self {
        // As Go reads a boolean.
        let is_true = |value: &str| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
        let is = |key: &str| data.get(key).is_some_and(|value| is_true(value));
        let translates = match data.get("kube-proxy-replacement").map(String::as_str) {
            // It means this as well. `probe` was for all that the kernel can, and ours can.
            Some("strict" | "probe") => true,
            Some(value) if is_true(value) => true,
            // It forbids this as well.
            Some("disabled") => false,
            // `false`, or `partial` in its older words: what else is asked for, also in older words.
            _ => is("bpf-lb-sock") || is("enable-host-reachable-services"),
        };
        match (translates, is("bpf-lb-sock-hostns-only")) {
            (false, _) => Self::PerPacket,
            (true, true) => Self::OfHost,
            (true, false) => Self::OfPods,
        }
    }
}

/// The agent of nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentFacts {
    /// Its namespace.
    pub namespace: NamespaceFacts,
    /// Its name there.
    pub name: String,
    /// Whom it asks the API as.
    pub service_account: String,
    /// On how many nodes it should run.
    pub wanted: i32,
    /// On how many it is ready.
    pub ready: i32,
}

/// Whether somebody may ask what the agent asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Whose rights they are.
    pub who: String,
    /// What is not allowed, as `list pods`.
    pub missing: Vec<String>,
}

/// A webhook that injects sidecars.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebhookFacts {
    /// The name of its configuration.
    pub name: String,
    /// When the first of the authorities that the API server would accept expires; or what is wrong with
    /// them.
    pub ca: Result<Timestamp, &'static str>,
    /// Whether pods are made all the same when it fails.
    pub ignores_failure: bool,
}

impl Preflight {
    /// Asks the cluster that the kubeconfig leads to (or the one that we run in), also about these
    /// namespaces.
    ///
    /// An error says why it could not be reached; what it refuses to say is an error in its place.
    pub async fn ask(named: &[String]) -> Result<Self, String> {
        let mut config = Config::infer().await.map_err(|error| innermost(&error))?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| sentence(&error))?;
        let (version, time) = version(&client).await.map_err(|error| sentence(&error))?;
        let agent = agent(&client).await;
        Ok(Self {
            server,
            version: version.ok_or_else(|| "it does not tell its version".to_owned()),
            ahead: time.map(|time| time.duration_since(Timestamp::now())),
            nodes: nodes(&client).await,
            heartbeats: heartbeats(&client, time).await,
            namespaces: namespaces(&client, named).await,
            cilium: cilium(&client).await,
            rights: rights(&client, agent.as_ref().ok().and_then(Option::as_ref)).await,
            agent,
            webhooks: webhooks(&client).await,
        })
    }
}

/// Its version and its time.
async fn version(client: &Client) -> Result<(Option<Version>, Option<Timestamp>), Error> {
    let request = Request::get("/version").body(Body::empty());
    let response = client.send(request.map_err(Error::HttpError)?).await?;
    let time = response.headers().get(DATE);
    let time = time
        .and_then(|time| rfc2822::parse(time.to_str().ok()?).ok())
        .map(|time| time.timestamp());
    let info = client.apiserver_version().await?;
    Ok((Version::parse(&info.git_version), time))
}

async fn nodes(client: &Client) -> Said<Vec<NodeFacts>> {
    let nodes = all(&Api::<Node>::all(client.clone()), "").await?;
    let facts = nodes.into_iter().map(|node| {
        let info = node.status.and_then(|status| status.node_info);
        let info = info.unwrap_or_default();
        NodeFacts {
            name: node.metadata.name.unwrap_or_default(),
            kernel: info.kernel_version,
            kubelet: info.kubelet_version,
            architecture: info.architecture,
            system: info.operating_system,
        }
    });
    Ok(facts.collect())
}

async fn heartbeats(
    client: &Client,
    now: Option<Timestamp>,
) -> Said<Vec<(String, SignedDuration)>> {
    let now = now.ok_or("the API server does not tell the time")?;
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let leases = all(&leases, "").await?;
    let beats = leases.into_iter().filter_map(|lease| {
        let renewed = lease.spec?.renew_time?.0;
        Some((lease.metadata.name?, renewed.duration_since(now)))
    });
    Ok(beats.collect())
}

async fn namespaces(client: &Client, named: &[String]) -> Said<Vec<NamespaceFacts>> {
    let pods = Api::<Pod>::all(client.clone());
    let asking = all(&pods, &format!("{LABEL}=enabled")).await?;
    let asking = asking.into_iter().filter_map(|pod| pod.metadata.namespace);
    let wanted: BTreeSet<String> = asking.chain(named.iter().cloned()).collect();
    let mut facts = Vec::new();
    for name in wanted {
        facts.push(namespace(client, name).await?);
    }
    Ok(facts)
}

async fn namespace(client: &Client, name: String) -> Said<NamespaceFacts> {
    let found = Api::<Namespace>::all(client.clone()).get_opt(&name).await;
    let found = found.map_err(|error| sentence(&error))?;
    let labels = found
        .as_ref()
        .and_then(|found| found.metadata.labels.as_ref());
    Ok(NamespaceFacts {
        enforced: labels
            .and_then(|labels| labels.get("pod-security.kubernetes.io/enforce"))
            .cloned(),
        exists: found.is_some(),
        name,
    })
}

async fn cilium(client: &Client) -> Said<Option<Cilium>> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let map = maps.get_opt("cilium-config").await;
    let map = map.map_err(|error| sentence(&error))?;
    Ok(map.map(|map| Cilium::new(&map.data.unwrap_or_default())))
}

async fn agent(client: &Client) -> Said<Option<AgentFacts>> {
    const LABELS: &str = "app.kubernetes.io/name=sidecar,app.kubernetes.io/component=node";
    let sets = all(&Api::<DaemonSet>::all(client.clone()), LABELS).await?;
    // The manifests label the pods; the set itself may be labelled by whoever has installed it.
    let sets = if sets.is_empty() {
        all(&Api::<DaemonSet>::all(client.clone()), "").await?
    } else {
        sets
    };
    let Some(set) = sets.into_iter().find(is_agent) else {
        return Ok(None);
    };
    let template = set.spec.and_then(|spec| spec.template.spec);
    let status = set.status.unwrap_or_default();
    let namespace_name = set.metadata.namespace.unwrap_or_default();
    Ok(Some(AgentFacts {
        namespace: namespace(client, namespace_name).await?,
        name: set.metadata.name.unwrap_or_default(),
        service_account: template
            .and_then(|spec| spec.service_account_name)
            .unwrap_or_else(|| "default".to_owned()),
        wanted: status.desired_number_scheduled,
        ready: status.number_ready,
    }))
}

/// Whether its pods are the agent's, as their labels say.
fn is_agent(set: &DaemonSet) -> bool {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref());
    let labels = template.and_then(|metadata| metadata.labels.as_ref());
    labels.is_some_and(|labels| {
        let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        is("app.kubernetes.io/name", "sidecar") && is("app.kubernetes.io/component", "node")
    })
}

/// Whether the agent may ask what it needs to; or whether we might, while there is none.
async fn rights(client: &Client, agent: Option<&AgentFacts>) -> Said<Rights> {
    let mut missing = Vec::new();
    for (group, resource) in [
        ("", "pods"),
        ("", "services"),
        ("discovery.k8s.io", "endpointslices"),
    ] {
        for verb in ["list", "watch"] {
            let asked = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            };
            let allowed = match agent {
                Some(agent) => may(client, agent, asked).await,
                None => may_we(client, asked).await,
            };
            if !allowed.map_err(|error| sentence(&error))? {
                missing.push(format!("{verb} {resource}"));
            }
        }
    }
    Ok(Rights {
        who: agent.map_or_else(
            || "whoever asks here, as no agent is installed".to_owned(),
            |agent| {
                format!(
                    "service account {}/{}",
                    agent.namespace.name, agent.service_account
                )
            },
        ),
        missing,
    })
}

async fn may(
    client: &Client,
    agent: &AgentFacts,
    asked: ResourceAttributes,
) -> Result<bool, Error> {
    let namespace = &agent.namespace.name;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            user: Some(format!(
                "system:serviceaccount:{namespace}:{}",
                agent.service_account
            )),
            // Those that every service account is in.
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn may_we(client: &Client, asked: ResourceAttributes) -> Result<bool, Error> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn webhooks(client: &Client) -> Said<Vec<WebhookFacts>> {
    const NAME: &str = "inject.sidecar.mesh";
    let all = all(
        &Api::<MutatingWebhookConfiguration>::all(client.clone()),
        "",
    )
    .await?;
    let mut facts = Vec::new();
    for configuration in all {
        let name = configuration.metadata.name.unwrap_or_default();
        let webhooks = configuration.webhooks.unwrap_or_default();
        for webhook in webhooks.into_iter().filter(|webhook| webhook.name == NAME) {
            facts.push(WebhookFacts {
                name: name.clone(),
                ca: webhook
                    .client_config
                    .ca_bundle
                    .map_or(Err("has no authority"), |bundle| expiry(&bundle.0)),
                ignores_failure: webhook.failure_policy.as_deref() == Some("Ignore"),
            });
        }
    }
    Ok(facts)
}

/// When the first of these certificates expires.
fn expiry(bundle: &[u8]) -> Result<Timestamp, &'static str> {
    const DAMAGED: &str = "has an authority that cannot be read";
    let mut first = None::<Timestamp>;
    for pem in Pem::iter_from_buffer(bundle) {
        let pem = pem.map_err(|_| DAMAGED)?;
        let certificate: X509Certificate<'_> = pem.parse_x509().map_err(|_| DAMAGED)?;
        let end = certificate.validity().not_after.timestamp();
        let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        first = Some(first.map_or(end, |first| first.min(end)));
    }
    first.ok_or("has no authority")
}

/// All objects of a kind, page by page.
async fn all<K>(api: &Api<K>, labels: &str) -> Said<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug + Resource,
{
    let mut params = ListParams::default().limit(PAGE).labels(labels);
    if labels.is_empty() {
        params.label_selector = None;
    }
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|error| sentence(&error))?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(objects),
        }
    }
}

/// What the API said, or else the cause that says most.
fn sentence(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        error => innermost(error),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn versions_are_read_whatever_follows_their_numbers() {
        for (text, number) in [
            ("v1.29.3", (1, 29)),
            ("v1.33.1-gke.1035000", (1, 33)),
            ("v1.28+", (1, 28)),
            ("1.30", (1, 30)),
        ] {
            assert_eq!(
                Version::parse(text).map(|version| version.number),
                Some(number),
                "{text}"
            );
        }
        for text in ["", "v", "v1", "one.two"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn whose_connect_cilium_translates_is_read_from_all_of_its_settings() {
        use Cilium::{OfHost, OfPods, PerPacket};

        // With nothing else set, with `bpf-lb-sock` alone, and each with `bpf-lb-sock-hostns-only`.
        for (replacement, expected) in [
            (None, [PerPacket, OfPods, PerPacket, OfHost]),
            (Some("true"), [OfPods, OfPods, OfHost, OfHost]),
            (Some("True"), [OfPods, OfPods, OfHost, OfHost]),
            (Some("strict"), [OfPods, OfPods, OfHost, OfHost]),
            (Some("probe"), [OfPods, OfPods, OfHost, OfHost]),
            (Some("false"), [PerPacket, OfPods, PerPacket, OfHost]),
            (Some("partial"), [PerPacket, OfPods, PerPacket, OfHost]),
            (Some("disabled"), [PerPacket; 4]),
            (Some(""), [PerPacket, OfPods, PerPacket, OfHost]),
        ] {
            let found = [(false, false), (true, false), (false, true), (true, true)].map(
                |(socket, hosts)| {
                    let settings = [
                        ("kube-proxy-replacement", replacement),
                        ("bpf-lb-sock", Some(if socket { "true" } else { "false" })),
                        ("bpf-lb-sock-hostns-only", hosts.then_some("true")),
                    ];
                    let data = settings
                        .into_iter()
                        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
                    Cilium::new(&data.collect())
                },
            );
            assert_eq!(found, expected, "{replacement:?}");
        }
    }

    #[test]
    fn the_older_name_of_ciliums_setting_counts_as_the_newer_one() {
        let older = |value: &str| {
            let key = "enable-host-reachable-services".to_owned();
            Cilium::new(&[(key, value.to_owned())].into())
        };
        assert_eq!(older("true"), Cilium::OfPods);
        assert_eq!(older("false"), Cilium::PerPacket);
    }

    fn authority(year: i32) -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn of_several_authorities_the_end_of_the_first_counts() {
        let bundle = authority(2040) + &authority(2031);
        let end = "2031-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(expiry(bundle.as_bytes()), Ok(end));
        for damaged in [
            "",
            "nothing",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(expiry(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[tokio::test]
    async fn the_time_of_the_api_server_is_that_of_its_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let ahead = Timestamp::now() + 1.hour();
        let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let body = r#"{"major":"1","minor":"33","gitVersion":"v1.33.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        });
        let server = format!("http://{address}").parse().expect("a URL");
        let client = Client::try_from(Config::new(server)).expect("a client");
        let (version, time) = version(&client).await.expect("an answer");
        assert_eq!(version.map(|version| version.number), Some((1, 33)));
        let apart = time.expect("a time").duration_since(ahead).abs();
        assert!(apart < SignedDuration::from_secs(2), "{apart}");
    }
}
