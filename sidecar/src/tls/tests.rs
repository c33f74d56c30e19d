mod chains;
mod refusals;
mod sessions;

use std::time::Duration;

use rustls::version::TLS12;
use rustls::{AlertDescription, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::identity::Ca;
use crate::identity::testing::{ca, id};

/// Far longer than anything here takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Where servers are.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Connected = Result<(client::TlsStream<TcpStream>, Peer), HandshakeError>;
type Accepted = Result<(server::TlsStream<TcpStream>, Peer), HandshakeError>;

/// The two ends of a connection: who made it, who took it.
pub(super) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

/// A workload that nobody else knows.
pub(super) fn tls() -> Tls {
    let (_dir, ca) = ca("example.org");
    workload(&ca, "web")
}

fn workload(ca: &Ca, path: &str) -> Tls {
    Tls::new(
        &ca.issue(&id(path), Duration::from_hours(1))
            .expect("identity"),
    )
}

async fn shake_hands(client: &Tls, server: &Tls) -> (Connected, Accepted) {
    let (connecting, accepting) = connected().await;
    let both = async { tokio::join!(client.connect(HERE, connecting), server.accept(accepting)) };
    timeout(DEADLINE, both).await.expect("no handshake hangs")
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (_dir, ca) = ca("example.org");
    let (web, db) = (workload(&ca, "web"), workload(&ca, "db"));
    let (connected, accepted) = shake_hands(&web, &db).await;
    let (mut connected, server) = connected.expect("connected");
    let (mut accepted, client) = accepted.expect("accepted");
    assert_eq!(server.id(), db.own());
    assert_eq!(client.id(), web.own());
    assert_eq!(accepted.get_ref().1.server_name(), None);

    connected.write_all(b"ping").await.expect("write");
    let mut read = [0; 4];
    accepted.read_exact(&mut read).await.expect("read");
    assert_eq!(&read, b"ping");
}

#[tokio::test]
async fn what_is_recorded_stays_secret_from_quantum_computers() {
    let (_dir, ca) = ca("example.org");
    let (connected, _) = shake_hands(&workload(&ca, "web"), &workload(&ca, "db")).await;
    let (connected, _) = connected.expect("connected");
    let session = connected.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().expect("group");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_peer_that_names_no_protocol_is_refused() {
    let (_dir, ca) = ca("example.org");
    let (mut mute_client, mut mute_server) = (workload(&ca, "web"), workload(&ca, "db"));
    let mut config = (**mute_client.connector.config()).clone();
    config.alpn_protocols.clear();
    mute_client.connector = Arc::new(config).into();
    let mut config = (**mute_server.acceptor.config()).clone();
    config.alpn_protocols.clear();
    mute_server.acceptor = Arc::new(config).into();

    let no_protocol = |error: HandshakeError| {
        matches!(
            error,
            HandshakeError::Incompatible(rustls::Error::NoApplicationProtocol)
        )
    };
    let (_, accepted) = shake_hands(&mute_client, &workload(&ca, "db")).await;
    assert!(no_protocol(accepted.expect_err("refused")));
    let (connected, _) = shake_hands(&workload(&ca, "web"), &mute_server).await;
    assert!(no_protocol(connected.expect_err("refused")));
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_refused() {
    let (_dir, ca) = ca("example.org");
    let mut client = workload(&ca, "web");
    let mut config = (**client.connector.config()).clone();
    config.alpn_protocols = vec![b"sidecar/3".to_vec()];
    client.connector = Arc::new(config).into();
    let (connected, accepted) = shake_hands(&client, &workload(&ca, "db")).await;
    assert!(matches!(
        accepted,
        Err(HandshakeError::Incompatible(
            rustls::Error::NoApplicationProtocol
        ))
    ));
    assert!(matches!(
        connected,
        Err(HandshakeError::RefusedByPeer(
            AlertDescription::NoApplicationProtocol
        ))
    ));
}

#[tokio::test]
async fn a_client_that_only_speaks_tls_1_2_is_refused() {
    let (_dir, ca) = ca("example.org");
    let mut client = workload(&ca, "web");
    let roots = rustls::RootCertStore::empty();
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.connector = Arc::new(config).into();
    let (connected, accepted) = shake_hands(&client, &workload(&ca, "db")).await;
    assert!(matches!(accepted, Err(HandshakeError::Incompatible(_))));
    assert!(matches!(
        connected,
        Err(HandshakeError::RefusedByPeer(
            AlertDescription::ProtocolVersion
        ))
    ));
}

#[tokio::test]
async fn an_open_connection_outlives_the_certificate_but_not_the_trust_in_it() {
    let (_dir, ours) = ca("example.org");
    let (_dir, others) = ca("example.org");
    let (web, db) = (workload(&ours, "web"), workload(&ours, "db"));
    let (connected, accepted) = shake_hands(&web, &db).await;
    let (mut server, mut client) = (
        connected.expect("connected").1,
        accepted.expect("accepted").1,
    );
    let (web, db) = (workload(&ours, "web"), workload(&ours, "db"));
    web.still_trusts(&mut server).expect("nothing has changed");
    db.still_trusts(&mut client).expect("nothing has changed");

    // Its root is gone from the bundle.
    let stranger = workload(&others, "web");
    for peer in [&mut server, &mut client] {
        let refused = stranger.still_trusts(peer).expect_err("not trusted");
        assert!(refused.to_string().contains("not issued by any authority"));
    }

    // A certificate that is over by the time of the next look.
    let (certificate, key) = ours.issue_adjusted(&id("short"), |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    });
    let short = Svid::new(vec![certificate], key, ours.trust()).expect("identity");
    let (_, accepted) = shake_hands(&Tls::new(&short), &db).await;
    let mut client = accepted.expect("accepted").1;
    let wait = short.not_after().duration_since(SystemTime::now());
    tokio::time::sleep(wait.unwrap_or_default() + Duration::from_secs(1)).await;
    let (_, accepted) = shake_hands(&Tls::new(&short), &db).await;
    assert!(accepted.is_err(), "new connections are refused");
    // The same trust, but not the same object: it has to be looked at anew.
    let db = workload(&ours, "db");
    db.still_trusts(&mut client)
        .expect("it has expired, no more");
}

/// What both ends make of a peer that sends `bytes` and ends.
async fn raw_peer(bytes: &[u8]) -> [HandshakeError; 2] {
    let tls = tls();
    let (mut client, server) = connected().await;
    client.write_all(bytes).await.expect("write");
    client.shutdown().await.expect("shutdown");
    let accepted = timeout(DEADLINE, tls.accept(server))
        .await
        .expect("no handshake hangs");

    let (client, mut server) = connected().await;
    server.write_all(bytes).await.expect("write");
    server.shutdown().await.expect("shutdown");
    let connected = timeout(DEADLINE, tls.connect(HERE, client))
        .await
        .expect("no handshake hangs");

    [
        accepted.expect_err("refused"),
        connected.expect_err("refused"),
    ]
}

#[tokio::test]
async fn plaintext_is_told_from_tls() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"220 mail ESMTP\r\n",
        b"\x16\xff\xff\xff\xff",
    ] {
        for error in raw_peer(bytes).await {
            assert!(matches!(error, HandshakeError::NotTls), "{error:?}");
        }
    }
}

#[tokio::test]
async fn garbage_in_tls_records_is_refused() {
    let garbage = b"\x16\x03\x03\x00\x08\xff\x00\x00\x04\xff\xff\xff\xff";
    for error in raw_peer(garbage).await {
        assert!(
            matches!(error, HandshakeError::Incompatible(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_is_broken() {
    for error in raw_peer(b"").await {
        assert!(matches!(error, HandshakeError::Broken(_)), "{error:?}");
    }
}
