//! Who answers, and who the cluster says is there.

use super::*;
use crate::{
    naming::{Known, ServiceAccount},
    policy::Naming,
};

/// A workload of no service account, and one of the account `shop/web`.
fn client_and_web() -> (Tls, Tls) {
    let (_dir, ca) = ca("example.org");
    let tls = |path| {
        let svid = ca
            .issue(&id(path), Duration::from_hours(1))
            .expect("an SVID");
        Tls::new(&svid).speaking(Protocol::Bytes)
    };
    (tls("a"), tls("ns/shop/sa/web"))
}

/// A service of pods of this account in the namespace `shop`.
fn service(account: &str) -> Arc<Known> {
    Arc::new(Known {
        namespace: "shop".into(),
        service: "till".into(),
        service_accounts: [ServiceAccount {
            namespace: "shop".to_owned(),
            name: account.to_owned(),
        }]
        .into(),
        ..Known::default()
    })
}

/// A proxy that dials a meshed server at an address of which this is known, and its access log.
fn proxy_towards(
    address: SocketAddr,
    known: Arc<Known>,
    policy: Policy,
    tls: Tls,
) -> (Arc<Proxy<FakeKernel>>, Log) {
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy_under(watch::channel(Arc::new(policy)).1, kernel, tls);
    { &proxy.directory }.tell(address.ip(), Some(address.port()), Some(known));
    (proxy, log)
}

fn named(naming: Naming, mode: Mode) -> Policy {
    Policy {
        naming,
        ..policy(mode)
    }
}

/// How often a server was misnamed, as the metric says it.
fn misnamed(proxy: &Proxy<FakeKernel>, outcome: &str) -> bool {
    let metrics = proxy.telemetry.render().expect("metrics");
    metrics.contains(&format!(
        "sidecar_peers_misnamed_total{{outcome=\"{outcome}\"}} 1\n"
    ))
}

async fn is_refused(policy: Policy) {
    let (own, web) = client_and_web();
    let (server, address) = listen().await;
    let (proxy, log) = proxy_towards(address, service("stock"), policy, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    // The reset may overtake the end of the handshake.
    if let Ok((mut server, _)) = web.accept(accept(&server).await).await {
        assert!(server.read_u8().await.is_err());
    }
    assert!(was_reset(app).await);
    logged(
        &log,
        "peer_service=till naming=peer_misnamed sent=0 received=0",
    )
    .await;
    logged(
        &log,
        &format!(
            "close=peer_misnamed reason=\"spiffe://example.org/ns/shop/sa/web answers at {address}, \
             which is a service of spiffe://example.org/ns/shop/sa/stock by what the cluster says\""
        ),
    )
    .await;
    assert!(misnamed(&proxy, "refused"));
}

#[tokio::test]
async fn a_valid_server_that_the_cluster_names_otherwise_is_told_nothing_under_strict() {
    is_refused(named(Naming::Strict, Mode::Strict)).await;
    is_refused(named(Naming::Enforce, Mode::Permissive)).await;
}

/// A server is reached; gives what is logged of it.
async fn reached(policy: Policy, known: Arc<Known>) -> (Arc<Proxy<FakeKernel>>, String) {
    let (own, web) = client_and_web();
    let (server, address) = listen().await;
    let (proxy, log) = proxy_towards(address, known, policy, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    let (mut server, _) = web
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    expect_bytes(&mut server, b"secret").await;
    drop((app, server));
    logged(&log, "sent=6").await;
    (proxy, log.text())
}

#[tokio::test]
async fn one_that_is_not_refused_is_reported() {
    for policy in [
        named(Naming::Strict, Mode::Permissive),
        named(Naming::Report, Mode::Strict),
    ] {
        let (proxy, log) = reached(policy, service("stock")).await;
        assert!(log.contains(" naming=peer_misnamed sent=6"), "{log}");
        assert!(misnamed(&proxy, "reported"));
    }
}

#[tokio::test]
async fn a_server_that_the_cluster_names_is_reached() {
    let unknown = Arc::new(Known {
        namespace: "shop".into(),
        ..Known::default()
    });
    let expected = Policy {
        naming: Naming::Enforce,
        ..admission::expectations("[{identities: ['spiffe://example.org/ns/shop/*']}]")
    };
    for (policy, known) in [
        (named(Naming::Enforce, Mode::Strict), service("web")),
        // Whom the cluster does not know, it cannot name.
        (named(Naming::Enforce, Mode::Strict), unknown),
        (named(Naming::Off, Mode::Strict), service("stock")),
        // What the settings expect comes before what the cluster says.
        (expected, service("stock")),
    ] {
        let (proxy, log) = reached(policy, known).await;
        assert!(!log.contains("naming="), "{log}");
        assert!(!misnamed(&proxy, "refused") && !misnamed(&proxy, "reported"));
    }
}

#[tokio::test]
async fn an_open_connection_ends_when_its_server_is_not_to_be_so_named_any_more() {
    let (own, web) = client_and_web();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (sender, policy_now) = watch::channel(Arc::new(named(Naming::Strict, Mode::Permissive)));
    let (proxy, log) = proxy_under(policy_now, kernel, own);
    { &proxy.directory }.tell(address.ip(), None, Some(service("stock")));
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    let (mut server, _) = web
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    expect_bytes(&mut server, b"secret").await;

    sender.send_replace(Arc::new(named(Naming::Strict, Mode::Strict)));

    assert!(was_reset(app).await);
    logged(&log, "close=no_longer_allowed").await;
}
