//! What becomes of a connection in every pair of modes, whatever is between the pods.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{App, Behaviour, Connection, Pod, Pods, SECRET, Stream, Wire, app::Session, wait};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both sides find each other in the TCP handshake, and speak mutual TLS.
    Mutual,
    /// They do not find each other, and speak mutual TLS all the same.
    MutualUnseen,
    /// The server's app hears the client in plaintext.
    Plain,
    /// The server's sidecar refuses the client, and its app hears nothing.
    RefusedByServer,
    /// The client's sidecar refuses the server, and has not told it anything of what the app says.
    RefusedByClient,
}

use Fate::{Mutual, MutualUnseen, Plain, RefusedByClient, RefusedByServer};

/// By the mode of the client; in each row by that of the server; both as in [`MODES`].
pub type Fates = [[Fate; 3]; 3];

/// The modes there are.
pub const MODES: [&str; 3] = ["off", "permissive", "strict"];

/// What becomes of connections where the mesh option gets through.
pub const WITH_OPTION: Fates = [
    [Plain, Plain, RefusedByServer],
    [Plain, Mutual, Mutual],
    [RefusedByClient, Mutual, Mutual],
];

/// What becomes of them where it is lost.
pub const WITHOUT_OPTION: Fates = [
    [Plain, Plain, RefusedByServer],
    [Plain, Plain, RefusedByServer],
    [RefusedByClient, MutualUnseen, MutualUnseen],
];

/// Two meshed pods with every pair of modes, each for a port of its own.
#[derive(Debug)]
pub struct EveryMode {
    /// Echoes on all of the ports. Gone before the sidecars are.
    app: App,
    /// Between which the network is.
    pub pods: Pods,
}

impl EveryMode {
    /// Gives both pods sidecars.
    #[track_caller]
    pub fn mesh(mut pods: Pods) -> Self {
        let [outbound, inbound] = ["outbound", "inbound"].map(overrides);
        // Each connection is to negotiate, also when the same is tried again.
        pods.mesh(
            Some(&["--reuse", "off", "--override", &outbound]),
            Some(&["--override", &inbound]),
        );
        let ports: Vec<_> = pairs()
            .map(|[client, server]| port(client, server))
            .collect();
        Self {
            app: App::start_on_all(&pods.server, Behaviour::Echo, &ports),
            pods,
        }
    }

    /// Has the client tell the server a secret in every pair of modes, and checks what becomes of
    /// that: for both apps, on the server's wire, and in both access logs.
    ///
    /// The address may be one that leads to the server. Returns what has crossed the server's wire.
    #[track_caller]
    pub fn assert_fates(&self, address: impl Into<IpAddr>, fates: &Fates) -> Wire {
        let address = address.into();
        // Nothing of what was before is still to come.
        let sessions_before = self.app.sessions().len();
        let logs = [
            (&self.pods.client, "outbound"),
            (&self.pods.server, "inbound"),
        ]
        .map(Log::from_here);
        let capture = self.pods.server.capture();
        let outcomes = self.tell_secret(address);
        let wire = capture.finish();
        let heard = fates
            .iter()
            .flatten()
            .filter(|fate| **fate != RefusedByServer);
        let sessions = self.app.sessions_when(sessions_before + heard.count());
        let sessions = &sessions[sessions_before..];
        for ([client, server], outcome) in pairs().zip(&outcomes) {
            let port = port(client, server);
            let conversation = Conversation {
                what: format!("{} client, {} server", MODES[client], MODES[server]),
                outcome,
                stream: wire.only_stream_to(port),
                session: sessions.iter().find(|session| session.local.port() == port),
                outbound: (MODES[client] != "off").then(|| logs[0].entry(port)),
                inbound: (MODES[server] != "off").then(|| logs[1].entry(port)),
            };
            conversation.assert_fate(fates[client][server], &self.pods);
        }
        wire
    }

    /// What comes of it for the client's app, in the order of [`pairs`].
    fn tell_secret(&self, address: IpAddr) -> Vec<String> {
        const TELL: &str = r"
from concurrent.futures import ThreadPoolExecutor
address, secret, *ports = sys.argv[1:]
with ThreadPoolExecutor(len(ports)) as pool:
    report(outcomes=list(pool.map(lambda port: converse(address, port, secret), ports)))
";
        let ports = pairs().map(|[client, server]| port(client, server).to_string());
        let snippet = self.pods.client.snippet(TELL);
        let snippet = snippet.args([&*address.to_string(), SECRET]).args(ports);
        let Outcomes { outcomes } = snippet.facts();
        outcomes
    }
}

/// What the snippet reports.
#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<String>,
}

/// All that is known of one connection, when it is over.
struct Conversation<'a> {
    what: String,
    /// What came of it for the client's app.
    outcome: &'a str,
    stream: &'a Stream,
    /// What the server's app saw of it.
    session: Option<&'a Session>,
    /// What the sidecars say, where they had to do with it.
    outbound: Option<Connection>,
    inbound: Option<Connection>,
}

impl Conversation<'_> {
    #[track_caller]
    fn assert_fate(&self, fate: Fate, pods: &Pods) {
        let (what, stream) = (&*self.what, self.stream);
        // Who dials is told by the wire that ends at the server, and nobody says otherwise.
        if let Some(session) = self.session {
            let peer = session.peer.ip().to_canonical();
            assert_eq!(peer, stream.client.ip(), "{what}");
        }
        if let Some(inbound) = &self.inbound {
            assert_eq!(
                (inbound.client, inbound.destination),
                (stream.client, stream.server),
                "{what}"
            );
        }
        assert_eq!(stream.is_meshed(), fate == Mutual, "{what}");
        match fate {
            Mutual | MutualUnseen => self.assert_mutual(pods),
            Plain => self.assert_plain(),
            RefusedByServer => self.assert_refused_by_server(),
            RefusedByClient => self.assert_refused_by_client(),
        }
    }

    #[track_caller]
    fn assert_mutual(&self, pods: &Pods) {
        let (what, stream) = (&*self.what, self.stream);
        self.assert_heard();
        assert!(stream.is_tls() && !stream.contains(SECRET), "{what}");
        let identities = [&pods.client, &pods.server].map(|pod| Some(pod.identity()));
        let [outbound, inbound] = [&self.outbound, &self.inbound]
            .map(|entry| entry.as_ref().unwrap_or_else(|| panic!("{what}: no entry")));
        for (entry, own, peer) in [(outbound, 0, 1), (inbound, 1, 0)] {
            assert_eq!((&*entry.tls, &*entry.close), ("mutual", "eof"), "{what}");
            assert_eq!(
                (&entry.own, &entry.peer),
                (&identities[own], &identities[peer]),
                "{what}"
            );
            let bytes = SECRET.len() as u64;
            assert_eq!((entry.sent, entry.received), (bytes, bytes), "{what}");
        }
    }

    #[track_caller]
    fn assert_plain(&self) {
        let what = &*self.what;
        self.assert_heard();
        assert!(self.stream.sent.contains(SECRET.as_bytes()), "{what}");
        for entry in self.outbound.iter().chain(&self.inbound) {
            assert_eq!(
                (&*entry.tls, &*entry.close),
                ("no_peer_option", "eof"),
                "{what}"
            );
        }
    }

    #[track_caller]
    fn assert_refused_by_server(&self) {
        let what = &*self.what;
        assert_eq!(self.outcome, "reset", "{what}");
        assert_eq!(self.session, None, "{what}");
        assert!(!self.stream.received.contains(SECRET.as_bytes()), "{what}");
        assert_refusal(what, self.inbound.as_ref(), "does not speak mutual TLS");
        // A client that may speak plaintext has done so, and found nothing wrong.
        if let Some(outbound) = &self.outbound {
            assert_eq!(
                (&*outbound.tls, &*outbound.close),
                ("no_peer_option", "server_reset"),
                "{what}"
            );
        }
    }

    #[track_caller]
    fn assert_refused_by_client(&self) {
        let what = &*self.what;
        assert_eq!(self.outcome, "reset", "{what}");
        assert!(!self.stream.contains(SECRET), "{what}");
        assert_refusal(what, self.outbound.as_ref(), "it shows no sidecar");
    }

    /// Checks that the server's app has heard the secret, and the client's the answer.
    #[track_caller]
    fn assert_heard(&self) {
        assert_eq!(self.outcome, SECRET, "{}", self.what);
        let received = self.session.map(|session| session.received);
        assert_eq!(received, Some(SECRET.len() as u64), "{}", self.what);
    }
}

/// Checks that a sidecar says that, and why, it refused plaintext.
#[track_caller]
fn assert_refusal(what: &str, entry: Option<&Connection>, words: &str) {
    let entry = entry.unwrap_or_else(|| panic!("{what}: no entry"));
    assert_eq!(
        (&*entry.tls, &*entry.close),
        ("failed", "plaintext_refused"),
        "{what}: {entry:?}"
    );
    let reason = entry.reason.as_deref().unwrap_or_default();
    assert!(
        reason.contains(words) && reason.contains("the mode is strict"),
        "{what}: {entry:?}"
    );
}

/// An access log from a moment on.
struct Log<'a> {
    pod: &'a Pod,
    direction: &'a str,
    /// How many entries there were.
    before: usize,
}

impl<'a> Log<'a> {
    fn from_here((pod, direction): (&'a Pod, &'a str)) -> Self {
        let before = pod.sidecar().connections().len();
        Self {
            pod,
            direction,
            before,
        }
    }

    /// Waits for the entry about the connection to this port.
    #[track_caller]
    fn entry(&self, port: u16) -> Connection {
        let what = format!("the {} connection to port {port} is logged", self.direction);
        wait::until_some(what, || {
            let mut entries = self
                .pod
                .sidecar()
                .connections()
                .into_iter()
                .skip(self.before);
            entries
                .find(|entry| entry.direction == self.direction && entry.destination.port() == port)
        })
    }
}

/// Every pair of modes, by where they stand in [`MODES`].
fn pairs() -> impl Iterator<Item = [usize; 2]> {
    (0..MODES.len()).flat_map(|client| (0..MODES.len()).map(move |server| [client, server]))
}

/// The port for this pair of modes.
fn port(client: usize, server: usize) -> u16 {
    let [client, server] =
        [client, server].map(|mode| u16::try_from(mode).expect("there are three"));
    8000 + 10 * client + server
}

/// What gives each port its mode in a direction.
fn overrides(direction: &str) -> String {
    let entry = |[client, server]: [usize; 2]| {
        let mode = MODES[if direction == "outbound" {
            client
        } else {
            server
        }];
        format!("{direction},port={},mode={mode}", port(client, server))
    };
    pairs().map(entry).collect::<Vec<_>>().join(";")
}
