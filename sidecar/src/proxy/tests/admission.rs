//! Who is let in, and who may answer.

use super::*;

/// A permissive policy with this authorization.
pub(super) fn authorization(yaml: &str) -> Policy {
    Policy {
        authorization: Some(serde_saphyr::from_str(yaml).expect(yaml)),
        ..policy(Mode::Permissive)
    }
}

/// A permissive policy with these expectations.
pub(super) fn expectations(yaml: &str) -> Policy {
    Policy {
        expectations: serde_saphyr::from_str(yaml).expect(yaml),
        ..policy(Mode::Permissive)
    }
}

/// A proxy under a policy that stays, and its access log.
fn proxy(kernel: FakeKernel, policy: Policy, tls: Tls) -> (Arc<Proxy<FakeKernel>>, Log) {
    proxy_under(watch::channel(Arc::new(policy)).1, kernel, tls)
}

/// Was the app left alone?
async fn heard_nothing(app: &TcpListener) -> bool {
    timeout(Duration::ZERO, app.accept()).await.is_err()
}

#[tokio::test]
async fn a_denied_identity_is_refused_before_the_app_hears_of_it() {
    let (own, other) = two_workloads();
    let (app, address) = listen().await;
    let policy = authorization(
        "rules: [{name: not-b, action: deny, identities: ['spiffe://example.org/b']}]",
    );
    let (proxy, log) = proxy(FakeKernel::default().meshed(), policy, own);
    let peer = arrive(&proxy, address).await;
    // In TLS 1.3 the client is done before the server has looked at it.
    let (mut peer, _) = other.connect(HERE, peer).await.expect("a handshake");
    assert!(peer.read_u8().await.is_err());
    let line =
        "tls=mutual own=spiffe://example.org/a peer=spiffe://example.org/b rule=not-b sent=0";
    logged(&log, line).await;
    logged(&log, "close=denied").await;
    assert!(heard_nothing(&app).await);
    let metrics = proxy.telemetry.render().expect("metrics");
    for sample in [
        r#"sidecar_authorization_decisions_total{decision="deny",rule="not-b"} 1"#,
        r#"sidecar_connections_failed_total{direction="inbound",reason="denied"} 1"#,
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }
}

#[tokio::test]
async fn an_allowed_identity_is_let_in_by_the_rule_that_says_so() {
    let (own, other) = two_workloads();
    let (app, address) = listen().await;
    let policy = authorization(
        "rules: [{name: b, action: allow, identities: ['spiffe://example.org/b']}, \
         {name: look, action: audit, unauthenticated: false}]",
    );
    let (proxy, log) = proxy(FakeKernel::default().meshed(), policy, own);
    let peer = arrive(&proxy, address).await;
    let (mut peer, _) = other.connect(HERE, peer).await.expect("a handshake");
    peer.write_all(b"question")
        .await
        .expect("an open connection");
    expect_bytes(&mut accept(&app).await, b"question").await;
    drop(peer);
    logged(&log, "rule=b sent=8").await;
    let metrics = proxy.telemetry.render().expect("metrics");
    for sample in [
        r#"sidecar_authorization_decisions_total{decision="allow",rule="b"} 1"#,
        r#"sidecar_authorization_audits_total{rule="look"} 1"#,
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }
}

#[tokio::test]
async fn a_denied_client_in_plaintext_is_refused_before_the_app_hears_of_it() {
    for policy in [
        "rules: [{name: no-guests, action: deny, unauthenticated: true}]",
        "rules: [{name: no-guests, action: deny, cidrs: [127.0.0.0/8]}]",
    ] {
        let (own, _) = two_workloads();
        let (app, address) = listen().await;
        let (proxy, log) = proxy(FakeKernel::default(), authorization(policy), own);
        let mut peer = arrive(&proxy, address).await;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("an open connection");
        assert!(was_reset(peer).await);
        logged(&log, "tls=no_peer_option rule=no-guests sent=0").await;
        logged(&log, "close=denied").await;
        assert!(heard_nothing(&app).await);
    }
}

#[tokio::test]
async fn one_who_is_denied_in_plaintext_is_let_in_with_tls_though_the_option_was_lost() {
    let (own, other) = two_workloads();
    let (app, address) = listen().await;
    let policy = authorization(
        "rules: [{name: members, action: allow, identities: ['spiffe://example.org/*']}]",
    );
    let (proxy, log) = proxy(FakeKernel::default(), policy, own);
    let peer = arrive(&proxy, address).await;
    let (mut peer, _) = other.connect(HERE, peer).await.expect("a handshake");
    peer.write_all(b"secret").await.expect("an open connection");
    expect_bytes(&mut accept(&app).await, b"secret").await;
    drop(peer);
    logged(&log, "rule=members sent=6").await;
}

#[tokio::test]
async fn a_server_that_is_not_expected_is_told_nothing() {
    let (own, peer) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let policy = expectations("[{cidr: 127.0.0.0/8, identities: ['spiffe://example.org/c']}]");
    let (proxy, log) = proxy(kernel, policy, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    // The reset may overtake the end of the handshake.
    if let Ok((mut server, _)) = peer.accept(accept(&server).await).await {
        assert!(server.read_u8().await.is_err());
    }
    assert!(was_reset(app).await);
    logged(&log, "peer=spiffe://example.org/b sent=0 received=0").await;
    logged(&log, "close=peer_unexpected").await;
}

#[tokio::test]
async fn a_server_that_is_expected_is_reached() {
    let (own, peer) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let policy =
        expectations("[{identities: ['spiffe://example.org/c', 'spiffe://example.org/b']}]");
    let (proxy, _) = proxy(kernel, policy, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    let (mut server, _) = peer
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    expect_bytes(&mut server, b"secret").await;
}

#[tokio::test]
async fn where_somebody_is_expected_plaintext_is_refused_in_every_mode() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let policy = expectations("[{identities: ['spiffe://example.org/*']}]");
    let (proxy, log) = proxy(FakeKernel::steered_to(address), policy, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    let mut server = accept(&server).await;
    let mut bytes = Vec::new();
    // It ends when the handshake has timed out.
    let _ = timeout(DEADLINE, server.read_to_end(&mut bytes))
        .await
        .expect("an end in time");
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    assert!(was_reset(app).await);
    logged(&log, "close=plaintext_refused").await;
}
