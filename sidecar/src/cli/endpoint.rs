//! The admin endpoint of a running sidecar, as its client.

use std::{borrow::Cow, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::output::harmless_line;
use crate::{
    config::{ADMIN, AdminAddress},
    pod,
};

/// How long a sidecar may take to answer. It does so from its own memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer, in bytes: far more than what is bounded there comes to.
const LARGEST: usize = 64 << 20;

/// The longest sentence of a refusal that is passed on, in bytes.
const SENTENCE: usize = 1024;

/// Where to find a running sidecar.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Where the admin endpoint of the sidecar listens
    #[arg(long, env = "SIDECAR_ADMIN", value_name = "ADDRESS", value_parser = address, default_value_t = ADMIN)]
    admin: SocketAddr,

    #[command(flatten)]
    place: Place,
}

/// Where to find a running sidecar, and which of its pods is meant.
#[derive(clap::Args, Debug)]
pub(super) struct OfPod {
    #[command(flatten)]
    endpoint: Args,

    /// Of the agent of a node: which of its pods
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<PodName>,
}

/// A pod as users name it: `NAMESPACE/NAME`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PodName(String);

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// Of a name (RFC 1123).
        const LONGEST: usize = 253;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let is_name = |name: &str| {
            (1..=LONGEST).contains(&name.len())
                && name.chars().all(is_plain)
                && !name.contains("..")
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is not a pod; write its namespace and its name, such as shop/web-0"
            )),
        }
    }
}

/// Where to find several, as seen from one place.
#[derive(clap::Args, Debug)]
pub(super) struct Several {
    /// Where the admin endpoint of the sidecar listens; may be given several times
    #[arg(long, env = "SIDECAR_ADMIN", value_name = "ADDRESS", value_parser = address, default_values_t = [ADMIN])]
    admin: Vec<SocketAddr>,

    #[command(flatten)]
    place: Place,
}

/// From where to ask.
#[derive(clap::Args, Debug)]
struct Place {
    /// The pod's network namespace, such as /run/netns/NAME, to ask from outside the pod
    /// [default: our own]
    #[arg(long, env = "SIDECAR_NETNS", value_name = "PATH")]
    netns: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, impl std::error::Error + use<>> {
    text.parse().map(AdminAddress::address)
}

/// A sidecar to ask. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    /// The pod that is meant, where there are many.
    pod: Option<PodName>,
}

impl Args {
    /// Enters the pod's network namespace, and makes what is needed to ask there.
    pub(super) fn enter(self) -> anyhow::Result<(Runtime, Endpoint)> {
        let (address, pod) = (self.admin, None);
        Ok((self.place.enter()?, Endpoint { address, pod }))
    }
}

impl OfPod {
    /// Enters the pod's network namespace, and makes what is needed to ask there.
    pub(super) fn enter(self) -> anyhow::Result<(Runtime, Endpoint)> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let pod = self.pod;
        Ok((runtime, Endpoint { pod, ..endpoint }))
    }
}

impl Several {
    /// Enters the pod's network namespace, and makes what is needed to ask there.
    pub(super) fn enter(self) -> anyhow::Result<(Runtime, Vec<Endpoint>)> {
        let endpoint = |address| Endpoint { address, pod: None };
        let endpoints = self.admin.into_iter().map(endpoint);
        Ok((self.place.enter()?, endpoints.collect()))
    }
}

impl Place {
    fn enter(self) -> anyhow::Result<Runtime> {
        if let Some(netns) = &self.netns {
            pod::enter_netns(netns)?;
        }
        // It asks from the only thread there is, which is in that namespace.
        Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start to ask")
    }
}

impl Endpoint {
    /// Who is asked, in words.
    pub(super) fn name(&self) -> String {
        match &self.pod {
            Some(PodName(pod)) => format!("{} {pod}", self.address),
            None => self.address.to_string(),
        }
    }

    /// Where a page of the pod is that is meant.
    fn path<'a>(&self, page: &'a str) -> Cow<'a, str> {
        match &self.pod {
            Some(PodName(pod)) => format!("/pods/{pod}{page}").into(),
            None => page.into(),
        }
    }

    /// What a page of JSON says.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(&self.bytes(path).await?).with_context(|| {
            format!(
                "what {} answers to {path} is of another version of sidecar",
                self.address
            )
        })
    }

    /// What a page of text says.
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let bytes = self.bytes(path).await?;
        String::from_utf8(bytes.into())
            .with_context(|| format!("what {} answers to {path} is no text", self.address))
    }

    async fn bytes(&self, path: &str) -> anyhow::Result<Bytes> {
        let page = async {
            let page = Limited::new(self.open(path).await?, LARGEST)
                .collect()
                .await;
            let page = page.map_err(|error| self.broken(path, &*error))?;
            Ok(page.to_bytes())
        };
        match timeout(PATIENCE, page).await {
            Ok(page) => page,
            Err(_) => Err(self.silent(path)),
        }
    }

    /// A page that comes bit by bit.
    pub(super) async fn open(&self, path: &str) -> anyhow::Result<Incoming> {
        let path = &*self.path(path);
        match timeout(PATIENCE, self.ask(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent(path)),
        }
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Incoming> {
        let address = self.address;
        let stream = TcpStream::connect(address).await.map_err(|error| {
            anyhow!(
                "cannot connect to {address}: {error}; is a sidecar running there? \
                 --admin and --netns say where to look"
            )
        })?;
        let broken = |error: &dyn std::error::Error| self.broken(path, error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // What goes wrong there shows in the answer too.
        tokio::spawn(connection);
        let question = Request::get(path)
            .header(HOST, address.to_string())
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .expect("paths and addresses are of plain characters");
        let answer = sender.send_request(question).await;
        let (head, body) = answer.map_err(|error| broken(&error))?.into_parts();
        if head.status != StatusCode::OK {
            let sentence = Limited::new(body, SENTENCE).collect().await;
            let sentence = sentence.map(Collected::to_bytes).unwrap_or_default();
            let sentence = String::from_utf8_lossy(&sentence);
            let sentence = harmless_line(sentence.trim());
            match (head.status, &*sentence) {
                (StatusCode::NOT_FOUND, "") => {
                    bail!("{address} has no page {path}: is it a sidecar, and of this version?")
                }
                (status, "") => bail!("{address} answers {path} with {status}"),
                (status, sentence) => bail!("{address} answers {path} with {status}: {sentence}"),
            }
        }
        Ok(body)
    }

    fn broken(&self, path: &str, error: &dyn std::error::Error) -> anyhow::Error {
        anyhow!("{} broke off its answer to {path}: {error}", self.address)
    }

    fn silent(&self, path: &str) -> anyhow::Error {
        anyhow!("{} does not answer {path} in {PATIENCE:?}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_pod_are_below_its_name() {
        let endpoint = |pod: Option<&str>| Endpoint {
            address: ADMIN,
            pod: pod.map(|pod| pod.parse().expect(pod)),
        };
        assert_eq!(endpoint(None).path("/edges"), "/edges");
        let web = endpoint(Some("shop/web-0"));
        assert_eq!(
            web.path("/tap?kind=denied"),
            "/pods/shop/web-0/tap?kind=denied"
        );
        assert_eq!(web.name(), "127.0.0.1:4195 shop/web-0");
    }

    #[test]
    fn who_listens_on_all_addresses_is_asked_on_one_that_there_is() {
        for (listens, asked) in [
            ("[::]:4195", "127.0.0.1:4195"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:4195", "[::1]:4195"),
            ("192.0.2.1:4195", "192.0.2.1:4195"),
        ] {
            assert_eq!(
                address(listens).map_err(|error| error.to_string()),
                Ok(asked.parse().expect("an address"))
            );
        }
    }

    #[test]
    fn what_names_no_pod_is_refused() {
        for text in [
            "",
            "web-0",
            "/web-0",
            "shop/",
            "shop/web/0",
            "shop/..",
            "shop/web?",
            "a b/c",
        ] {
            assert_eq!(
                text.parse::<PodName>(),
                Err(format!(
                    "`{text}` is not a pod; write its namespace and its name, such as shop/web-0"
                ))
            );
        }
    }
}
