//! What becomes of open connections when the policy changes, or whom to trust.

use super::*;
use crate::identity::Trust;

/// A policy to change, and who watches it.
fn changing(policy: Policy) -> (watch::Sender<Arc<Policy>>, watch::Receiver<Arc<Policy>>) {
    watch::channel(Arc::new(policy))
}

/// Carries a few bytes each way.
async fn converse(app: &mut TcpStream, server: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    app.write_all(b"question").await.expect("an open leg");
    expect_bytes(server, b"question").await;
    server.write_all(b"answer").await.expect("an open leg");
    server.flush().await.expect("an open leg");
    expect_bytes(app, b"answer").await;
}

#[tokio::test]
async fn plaintext_is_closed_when_the_mode_becomes_strict_and_tls_lives_on() {
    let (own, peer) = two_workloads();
    let (sender, policy_now) = changing(policy(Mode::Permissive));
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address);
    let (plain, plain_log) = proxy_under(policy_now.clone(), kernel, own.clone());
    let mut plain_app = connect(&plain).await;
    let mut plain_server = accept(&server).await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (meshed, _) = proxy_under(policy_now, kernel, own);
    let mut meshed_app = connect(&meshed).await;
    let (mut meshed_server, _) = peer
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    converse(&mut plain_app, &mut plain_server).await;
    converse(&mut meshed_app, &mut meshed_server).await;

    sender.send_replace(Arc::new(policy(Mode::Strict)));

    assert!(was_reset(plain_app).await);
    assert!(was_reset(plain_server).await);
    logged(&plain_log, "sent=8 received=6").await;
    logged(&plain_log, "close=no_longer_allowed").await;
    let metrics = plain.telemetry.render().expect("metrics");
    assert!(
        metrics.contains(r#"close="no_longer_allowed",direction="outbound""#),
        "{metrics}"
    );
    converse(&mut meshed_app, &mut meshed_server).await;
}

#[tokio::test]
async fn plaintext_on_which_nobody_has_spoken_is_closed_too() {
    for (change, rule) in [
        (policy(Mode::Strict), "tls=pending"),
        (
            admission::authorization(
                "rules: [{name: no-plaintext, action: deny, unauthenticated: true}]",
            ),
            "rule=no-plaintext",
        ),
    ] {
        let (own, _) = two_workloads();
        let (sender, policy_now) = changing(policy(Mode::Permissive));
        let (app, address) = listen().await;
        let (proxy, log) = proxy_under(policy_now, FakeKernel::default(), own);
        let peer = arrive(&proxy, address).await;
        let app = accept(&app).await;
        sender.send_replace(Arc::new(change));
        assert!(was_reset(peer).await);
        assert!(was_reset(app).await);
        logged(&log, rule).await;
        logged(&log, "close=no_longer_allowed").await;
    }
}

#[tokio::test]
async fn a_connection_that_is_busy_is_closed_too() {
    let (own, _) = two_workloads();
    let (sender, policy_now) = changing(policy(Mode::Permissive));
    let (server, address) = listen().await;
    let (proxy, log) = proxy_under(policy_now, FakeKernel::steered_to(address), own);
    let mut app = connect(&proxy).await;
    let mut server = accept(&server).await;
    let sink =
        tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
    let flood = tokio::spawn(async move { while app.write_all(&[0; 16_384]).await.is_ok() {} });
    let begun = async {
        while !proxy
            .telemetry
            .open_connections()
            .iter()
            .any(|open| open.sent > 1_000_000)
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, begun).await.expect("a flood in time");
    sender.send_replace(Arc::new(policy(Mode::Strict)));
    timeout(DEADLINE, flood)
        .await
        .expect("an end in time")
        .expect("no panic");
    let ended = sink.await.expect("no panic");
    assert!(ended.is_err(), "a reset, not an end: {ended:?}");
    logged(&log, "close=no_longer_allowed").await;
}

#[tokio::test]
async fn a_change_between_admission_and_carrying_is_not_missed() {
    let (own, _) = two_workloads();
    let (sender, policy_now) = changing(policy(Mode::Permissive));
    let (proxy, _) = proxy_under(policy_now, FakeKernel::default(), own);
    let client = ClientAddr("198.18.0.1:40000".parse().expect("an address"));
    let destination = OrigDst("198.18.0.2:80".parse().expect("an address"));
    sender.send_replace(Arc::new(policy(Mode::Strict)));
    let mut standing = proxy.standing(Direction::Inbound, client, destination, None);
    let lost = timeout(DEADLINE, standing.lost())
        .await
        .expect("lost at once");
    assert_eq!(lost.close, Close::NoLongerAllowed);
    assert_eq!(
        lost.explanation,
        "it is in plaintext, and the mode for 198.18.0.1:40000 is strict now"
    );
}

/// A connection of a client in TLS, which has been used: the client, and the app's end of it.
async fn admitted(
    proxy: &Arc<Proxy<FakeKernel>>,
    client: &Tls,
    app: &TcpListener,
    address: SocketAddr,
) -> (tokio_rustls::client::TlsStream<TcpStream>, TcpStream) {
    let peer = arrive(proxy, address).await;
    let (mut peer, _) = client.connect(HERE, peer).await.expect("a handshake");
    let mut app = accept(app).await;
    converse(&mut app, &mut peer).await;
    (peer, app)
}

#[tokio::test]
async fn exactly_those_that_are_no_longer_let_in_are_closed() {
    let (_dir, ca) = ca("example.org");
    let [own, b, c] = ["a", "b", "c"].map(|path| {
        let svid = ca.issue(&id(path), Duration::from_hours(1));
        Tls::new(&svid.expect("an SVID")).speaking(Protocol::Bytes)
    });
    let (sender, policy_now) = changing(policy(Mode::Permissive));
    let (app, address) = listen().await;
    let (proxy, log) = proxy_under(policy_now, FakeKernel::default().meshed(), own);
    let (mut b, mut app_of_b) = admitted(&proxy, &b, &app, address).await;
    let (mut c, app_of_c) = admitted(&proxy, &c, &app, address).await;

    let not_c = "rules: [{name: not-c, action: deny, identities: ['spiffe://example.org/c']}]";
    sender.send_replace(Arc::new(admission::authorization(not_c)));

    assert!(was_reset(app_of_c).await);
    assert!(c.read_u8().await.is_err());
    logged(&log, "peer=spiffe://example.org/c rule=not-c").await;
    logged(&log, "close=no_longer_allowed").await;
    converse(&mut app_of_b, &mut b).await;
    let deny_all = "default: deny";
    sender.send_replace(Arc::new(admission::authorization(deny_all)));
    assert!(was_reset(app_of_b).await);
    logged(&log, "peer=spiffe://example.org/b rule=default").await;
}

#[tokio::test]
async fn a_server_that_is_no_longer_expected_is_left() {
    let (own, peer) = two_workloads();
    let (sender, policy_now) = changing(admission::expectations(
        "[{identities: ['spiffe://example.org/b']}]",
    ));
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy_under(policy_now, kernel, own);
    let mut app = connect(&proxy).await;
    let (mut server, _) = peer
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    converse(&mut app, &mut server).await;
    let others = "[{identities: ['spiffe://example.org/b', 'spiffe://example.org/c']}]";
    sender.send_replace(Arc::new(admission::expectations(others)));
    converse(&mut app, &mut server).await;
    let another = "[{identities: ['spiffe://example.org/c']}]";
    sender.send_replace(Arc::new(admission::expectations(another)));
    assert!(was_reset(app).await);
    logged(&log, "close=no_longer_allowed").await;
}

#[tokio::test]
async fn exactly_those_whose_certificate_is_revoked_are_closed() {
    let (_dir, ca) = ca("example.org");
    let [own, b, c] = ["a", "b", "c"].map(|path| {
        ca.issue(&id(path), Duration::from_hours(1))
            .expect("an SVID")
    });
    let (_policy, policy_now) = changing(policy(Mode::Permissive));
    let (identity, identity_now) = watch::channel(Some(Arc::new(Tls::new(&own))));
    let (app, address) = listen().await;
    let kernel = FakeKernel::default().meshed();
    let (mut proxy, log) = proxy_under(policy_now, kernel, Tls::new(&own));
    Arc::get_mut(&mut proxy).expect("not shared yet").identity = identity_now;
    let (mut open_b, mut app_of_b) = admitted(
        &proxy,
        &Tls::new(&b).speaking(Protocol::Bytes),
        &app,
        address,
    )
    .await;
    let (mut open_c, app_of_c) = admitted(
        &proxy,
        &Tls::new(&c).speaking(Protocol::Bytes),
        &app,
        address,
    )
    .await;

    // A renewed certificate is no reason to close anything.
    let renewed = ca
        .issue(&id("a"), Duration::from_hours(1))
        .expect("an SVID");
    identity.send_replace(Some(Arc::new(Tls::new(&renewed))));
    converse(&mut app_of_b, &mut open_b).await;

    let trust = Trust::of(&renewed).without(ca.revoked(&[&c.chain()[0]]));
    let tls = Tls::trusting(&renewed, trust.into());
    identity.send_replace(Some(Arc::new(tls)));
    assert!(was_reset(app_of_c).await);
    assert!(open_c.read_u8().await.is_err());
    logged(&log, "peer=spiffe://example.org/c sent=").await;
    logged(&log, "close=no_longer_trusted").await;
    let metrics = proxy.telemetry.render().expect("metrics");
    assert!(
        metrics.contains(r#"close="no_longer_trusted",direction="inbound""#),
        "{metrics}"
    );
    converse(&mut app_of_b, &mut open_b).await;
}

#[tokio::test]
async fn a_server_whose_root_is_gone_is_left() {
    let (_dir, old) = ca("example.org");
    let (_dir, new) = ca("example.org");
    let [own, peer] = [(&old, "a"), (&old, "b")].map(|(ca, path)| {
        ca.issue(&id(path), Duration::from_hours(1))
            .expect("an SVID")
    });
    let (_policy, policy_now) = changing(policy(Mode::Permissive));
    let (identity, identity_now) = watch::channel(Some(Arc::new(Tls::new(&own))));
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (mut proxy, log) = proxy_under(policy_now, kernel, Tls::new(&own));
    Arc::get_mut(&mut proxy).expect("not shared yet").identity = identity_now;
    let mut app = connect(&proxy).await;
    let (mut server, _) = Tls::new(&peer)
        .speaking(Protocol::Bytes)
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    converse(&mut app, &mut server).await;
    let moved = new
        .issue(&id("a"), Duration::from_hours(1))
        .expect("an SVID");
    identity.send_replace(Some(Arc::new(Tls::new(&moved))));
    assert!(was_reset(app).await);
    logged(&log, "close=no_longer_trusted").await;
}
