//! What the kernel side tells of a connection's sockets is counted by what they are for.

use sidecar_common::SocketStatistics;

use super::*;

/// Has the kernel side tell of the socket that is connected to `peer`, for the last time.
fn told(proxy: &Proxy<FakeKernel>, peer: SocketAddr, sent: u64) {
    let cookies = proxy.kernel.cookies.lock().expect("no panic while asking");
    let found = cookies.iter().find(|(found, _)| *found == peer);
    proxy.telemetry.measured(&SocketStatistics {
        cookie: found.expect("its cookie was asked for").1,
        acknowledged: sent,
        last: 1,
        ..SocketStatistics::default()
    });
}

/// What was counted as sent on a leg, with these other labels.
fn counted(proxy: &Proxy<FakeKernel>, leg: &str, labels: &str) -> Option<u64> {
    let text = proxy.telemetry.render().expect("metrics");
    let mut lines = text.lines();
    let line = lines.find(|line| {
        line.starts_with("sidecar_tcp_sent_bytes_total{")
            && line.contains(&format!("leg=\"{leg}\""))
            && line.contains(labels)
    });
    line?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn outbound_the_network_is_where_the_proxy_has_dialled() {
    let (own, peer) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let app = connect(&proxy).await;
    let app_address = app.local_addr().expect("a bound socket");
    let accepted = peer.accept(accept(&server).await).await;
    drop((app, accepted.expect("a handshake")));
    logged(&log, "tls=mutual").await;
    told(&proxy, address, 7);
    told(&proxy, app_address, 9);
    let peer = "peer=\"spiffe://example.org/b\"";
    assert_eq!(counted(&proxy, "network", peer), Some(7));
    assert_eq!(counted(&proxy, "app", peer), Some(9));
}

#[tokio::test]
async fn inbound_the_network_is_what_the_proxy_has_accepted() {
    let (own, peer) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, log) = proxy(FakeKernel::default().meshed(), Mode::Permissive, own);
    let client = arrive(&proxy, address).await;
    let client_address = client.local_addr().expect("a bound socket");
    let client = peer.connect(HERE, client).await;
    let app = accept(&app).await;
    drop((client.expect("a handshake"), app));
    logged(&log, "tls=mutual").await;
    told(&proxy, client_address, 7);
    told(&proxy, address, 9);
    let peer = "peer=\"spiffe://example.org/b\"";
    assert_eq!(counted(&proxy, "network", peer), Some(7));
    assert_eq!(counted(&proxy, "app", peer), Some(9));
}

#[tokio::test]
async fn what_is_told_of_a_leg_while_its_peer_is_unknown_is_counted_by_how_it_fails() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let app = connect(&proxy).await;
    // It dials, and waits for an answer to its hello.
    let mut server = accept(&server).await;
    server.read_u8().await.expect("a hello");
    told(&proxy, address, 7);
    assert_eq!(counted(&proxy, "network", ""), None);
    drop(server);
    assert!(was_reset(app).await);
    logged(&log, "tls=failed").await;
    assert_eq!(counted(&proxy, "network", "tls=\"failed\""), Some(7));
}
