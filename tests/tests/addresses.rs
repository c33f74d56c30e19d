//! Which addresses the apps see and can be reached by: the true ones.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use sidecar_tests::{App, Behaviour, Pod, Pods, Program, SECRET};

/// Sends a line to an echo server, and tells which addresses the client saw.
const ECHO: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
sock.sendall(b"violet rhinoceros\n")
report(echoed=read_line(sock), local=text(sock.getsockname()), peer=text(sock.getpeername()))
"#;

/// What [`ECHO`] reports.
#[derive(Debug, Deserialize)]
struct Echo {
    echoed: String,
    local: SocketAddr,
    peer: SocketAddr,
}

#[test]
fn each_app_sees_the_others_true_address() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let (v4, v6) = (pods.server.v4(), pods.server.v6());
    let mapped = v4.to_ipv6_mapped();
    let (own_v4, own_v6) = (pods.client.v4(), pods.client.v6());
    let cases: [(IpAddr, IpAddr); 3] = [
        (v4.into(), own_v4.into()),
        (v6.into(), own_v6.into()),
        // A dual-stack socket that reaches IPv4 sees IPv4-mapped addresses, as without us.
        (mapped.into(), own_v4.to_ipv6_mapped().into()),
    ];
    let capture = pods.client.capture();
    for (server, own) in cases {
        let seen: Echo = echo(&pods.client, server, 8080).facts();
        assert_eq!(seen.echoed, SECRET);
        assert_eq!(seen.peer, (server, 8080).into());
        assert_eq!(seen.local.ip(), own);
    }
    let mut sessions = app.sessions_when(cases.len());
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    sessions.sort_by_key(|session| session.peer.port());
    let mut on_wire: Vec<_> = wire.streams.iter().map(|stream| stream.client).collect();
    on_wire.sort_by_key(SocketAddr::port);
    // The app listens on a dual-stack socket, on which the kernel reports IPv4 as mapped.
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mut seen: Vec<_> = sessions.iter().map(|session| plain(session.peer)).collect();
    // The second to IPv4 was carried by what carried the first.
    assert_eq!(seen.len(), cases.len());
    seen.dedup();
    assert_eq!(seen, on_wire);
    assert!(sessions.iter().all(|session| session.local.port() == 8080));
}

#[test]
fn an_app_bound_to_the_pod_ip_alone_is_reached() {
    let pods = Pods::meshed();
    let (v4, v6) = (pods.server.v4(), pods.server.v6());
    let apps = [
        App::start_on(&pods.server, Behaviour::Echo, &v4.to_string(), 8004),
        App::start_on(&pods.server, Behaviour::Echo, &v6.to_string(), 8006),
    ];
    let capture = pods.client.capture();
    for (address, port) in [(IpAddr::V4(v4), 8004), (v6.into(), 8006)] {
        let seen: Echo = echo(&pods.client, address, port).facts();
        assert_eq!(seen.echoed, SECRET);
    }
    for app in apps {
        let session = app.only_session();
        assert!(
            [pods.client.v4().into(), IpAddr::V6(pods.client.v6())].contains(&session.peer.ip())
        );
    }
    capture.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn an_app_bound_to_loopback_alone_stays_unreachable() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start_on(&pods.server, Behaviour::Echo, "127.0.0.1", 8080);
    let output = echo(&pods.client, pods.server.v4().into(), 8080).run();
    assert!(output.stderr.contains("ConnectionRefusedError"), "{output}");
    // From inside, it is as reachable as ever.
    let seen: Echo = echo(&pods.server, [127, 0, 0, 1].into(), 8080).facts();
    assert_eq!(seen.peer, ([127, 0, 0, 1], 8080).into());
    assert_eq!(app.only_session().peer, seen.local);
}

#[test]
fn a_pod_that_dials_itself_reaches_itself() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.server.capture();
    for own in [IpAddr::V4(pods.server.v4()), pods.server.v6().into()] {
        let seen: Echo = echo(&pods.server, own, 8080).facts();
        assert_eq!(seen.echoed, SECRET);
        assert_eq!(seen.peer, (own, 8080).into());
        assert_eq!(seen.local.ip(), own);
    }
    assert_eq!(capture.finish().streams.len(), 0);
    for session in app.sessions_when(2) {
        let peer = session.peer.ip().to_canonical();
        assert!(
            [pods.server.v4().into(), IpAddr::V6(pods.server.v6())].contains(&peer),
            "{peer}"
        );
    }
}

fn echo(pod: &Pod, address: IpAddr, port: u16) -> Program<'_> {
    pod.snippet(ECHO)
        .args([address.to_string(), port.to_string()])
}
