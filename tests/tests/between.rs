//! What stands between the pods: routers, translated addresses, tunnels, and wires that lose packets.
//! What the sidecars promise holds across all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};
use sidecar_tests::{
    App, Behaviour, Capture, Connection, EveryMode, Network, Pod, Pods, Process, SECRET, Tunnel,
    fates::WITH_OPTION, tunnel::Encapsulation, wait,
};

const STRICT: &[&str] = &["--inbound", "strict", "--outbound", "strict"];

/// The addresses of a service, which no pod has.
const SERVICE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 19, 0, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x5ca, 1, 0, 0, 0, 0, 10)),
];
/// The port of the service.
const SERVICE_PORT: u16 = 80;
/// The port of the app.
const PORT: u16 = 8080;

/// Says something, and tells what the socket's addresses are and what came back.
const SAY: &str = r"
with dial(sys.argv[1], sys.argv[2]) as sock:
    sock.sendall(sys.argv[3].encode())
    report(own=text(sock.getsockname()), peer=text(sock.getpeername()), answer=ending(sock))
";

#[test]
fn no_mode_minds_a_router() {
    let every = EveryMode::mesh(Pods::routed());
    for address in addresses(&every.pods.server) {
        let wire = every.assert_fates(address, &WITH_OPTION);
        assert!(wire.streams.iter().all(|stream| stream.hops == 63));
    }
}

#[test]
fn pods_a_hop_apart_see_each_others_addresses() {
    let mut pods = Pods::routed();
    pods.mesh(Some(STRICT), Some(STRICT));
    for (client, server) in addresses(&pods.client).zip(addresses(&pods.server)) {
        let app = App::start(&pods.server, Behaviour::Echo, PORT);
        let captures = [&pods.client, &pods.server].map(Pod::capture);
        let seen = say(&pods.client, server, PORT);
        assert_eq!(seen.answer, SECRET);
        assert_eq!((seen.own.ip(), seen.peer), (client, (server, PORT).into()));
        let session = app.only_session();
        assert_eq!(session.peer.ip().to_canonical(), client);
        assert_eq!(session.local.ip().to_canonical(), server);
        let [near, far] = captures.map(Capture::finish);
        for wire in [&near, &far] {
            wire.assert_encrypted(&[SECRET]);
        }
        let hops = [&near, &far].map(|wire| wire.only_stream().hops);
        assert_eq!(hops, [64, 63]);
    }
    pods.mutual_connection(PORT);
}

#[test]
fn a_narrow_link_further_on_is_found_out() {
    let mut pods = Pods::routed();
    narrow(&pods);
    pods.mesh(Some(STRICT), Some(STRICT));
    let _app = App::start(&pods.server, Behaviour::Echo, PORT);
    assert_eq!(bulk(&pods, pods.server.v4()), whole());
    pods.mutual_connection(PORT);
    for pod in [&pods.client, &pods.server] {
        // The router has said so, and was believed.
        assert_ne!(counter(pod, "InDestUnreachs"), 0, "{}", pod.role());
    }
}

#[test]
fn a_link_that_swallows_full_packets_fails_handshakes_and_the_log_says_how() {
    // Whoever is told to wait for less gives up first.
    let limit: &[&str] = &["--handshake-timeout", "1s"];
    for (client, server, closes) in [
        (limit, &[][..], ["handshake_timeout", "handshake_broken"]),
        (&[][..], limit, ["handshake_broken", "handshake_timeout"]),
    ] {
        let mut pods = Pods::routed();
        narrow(&pods);
        // Nobody hears why.
        pods.network.nft(
            "table ip swallow {
                chain output {
                    type filter hook output priority 0
                    icmp type destination-unreachable drop
                }
            }",
        );
        pods.mesh(Some(client), Some(server));
        let app = App::start(&pods.server, Behaviour::Echo, PORT);
        let outcome = pods.client.converse(pods.server.v4(), PORT, SECRET);
        assert_eq!(outcome, "reset");
        for ((pod, direction), close) in [(&pods.client, "outbound"), (&pods.server, "inbound")]
            .into_iter()
            .zip(closes)
        {
            let failures = pod.sidecar().failures(direction, 1);
            assert_eq!(failures[0].close, close);
            let reason = failures[0].reason.as_deref().unwrap_or_default();
            let words = "did not finish the TLS handshake in 1s";
            assert_eq!(
                reason.contains(words),
                close == "handshake_timeout",
                "{reason}"
            );
        }
        app.sessions_when(0);
    }
}

#[test]
fn no_mode_minds_the_address_of_a_service() {
    let every = EveryMode::mesh(Pods::routed());
    translate(&every.pods.network, &[&every.pods.server], false);
    for address in SERVICE {
        every.assert_fates(address, &WITH_OPTION);
    }
}

#[test]
fn no_mode_minds_a_translated_client() {
    let every = EveryMode::mesh(Pods::routed());
    translate(&every.pods.network, &[&every.pods.server], true);
    for address in SERVICE {
        let wire = every.assert_fates(address, &WITH_OPTION);
        let router = [IpAddr::from(Network::V4), Network::V6.into()];
        let mut clients = wire.streams.iter().map(|stream| stream.client.ip());
        assert!(clients.all(|client| router.contains(&client)));
    }
}

#[test]
fn across_a_services_address_each_side_knows_who_the_other_is() {
    let mut pods = Pods::routed();
    translate(&pods.network, &[&pods.server], false);
    pods.mesh(Some(STRICT), Some(STRICT));
    for ((service, client), server) in SERVICE
        .into_iter()
        .zip(addresses(&pods.client))
        .zip(addresses(&pods.server))
    {
        let app = App::start(&pods.server, Behaviour::Echo, PORT);
        let capture = pods.server.capture();
        let seen = say(&pods.client, service, SERVICE_PORT);
        assert_eq!(seen.answer, SECRET);
        // The client's app sees whom it has dialled, and the server's who has.
        assert_eq!(
            (seen.own.ip(), seen.peer),
            (client, (service, SERVICE_PORT).into())
        );
        let session = app.only_session();
        assert_eq!(session.peer.ip().to_canonical(), client);
        let local = SocketAddr::new(session.local.ip().to_canonical(), session.local.port());
        assert_eq!(local, (server, PORT).into());

        let outbound = entry(&pods.client, (service, SERVICE_PORT));
        let inbound = entry(&pods.server, (server, PORT));
        assert_eq!(outbound.client, inbound.client);
        assert_eq!(inbound.client.ip(), client);
        assert_mutual(&outbound, &pods.client, &pods.server);
        assert_mutual(&inbound, &pods.server, &pods.client);
        capture.finish().assert_encrypted(&[SECRET]);
    }
}

#[test]
fn a_client_whose_address_is_hidden_is_known_by_its_identity() {
    let mut pods = Pods::routed();
    translate(&pods.network, &[&pods.server], true);
    let only_the_client = pods.server.sandbox().file(
        "sidecar.yaml",
        "authorization: {rules: [{name: client, action: allow, service-accounts: [client]}]}\n",
    );
    let config = only_the_client.to_str().expect("a plain path");
    pods.mesh(Some(&[]), Some(&["--config", config]));
    let mut stranger = pods.join("stranger");
    stranger.mesh(&pods.dev_ca(), &[]);
    stranger.wait_until_ready();
    let app = App::start(&pods.server, Behaviour::Echo, PORT);
    for (pod, outcome, close, rule) in [
        (&pods.client, SECRET, "eof", "client"),
        (&stranger, "reset", "denied", "default"),
    ] {
        assert_eq!(pod.converse(SERVICE[0], SERVICE_PORT, SECRET), outcome);
        let identity = pod.identity();
        let inbound = pods
            .server
            .sidecar()
            .connection(|entry| entry.peer.as_ref() == Some(&identity));
        assert_eq!(
            (&*inbound.close, inbound.rule.as_deref()),
            (close, Some(rule))
        );
        assert_eq!(inbound.client.ip(), Network::V4);
    }
    let session = app.only_session();
    assert_eq!(session.peer.ip().to_canonical(), Network::V4);
}

#[test]
fn a_connection_to_a_service_is_never_carried_by_that_of_another() {
    let mut pods = Pods::routed();
    translate(&pods.network, &[&pods.server], false);
    pods.mesh(Some(&[]), Some(&[]));
    let app = App::start(&pods.server, Behaviour::Echo, PORT);
    let capture = pods.server.capture();
    // By the pod's own address the second goes where the first has gone.
    for (address, port) in [(SERVICE[0], SERVICE_PORT), (pods.server.v4().into(), PORT)] {
        for _ in 0..2 {
            assert_eq!(pods.client.converse(address, port, SECRET), SECRET);
        }
    }
    app.sessions_when(4);
    assert_eq!(capture.finish().streams.len(), 3);
}

#[test]
fn each_connection_to_a_service_is_judged_by_who_answers() {
    for (mode, of_plain) in [("permissive", SECRET), ("strict", "reset")] {
        let mut pods = Pods::routed();
        pods.mesh(Some(&["--outbound", mode]), Some(&[]));
        // By turns one with a sidecar, and one without.
        let plain = pods.join("plain");
        translate(&pods.network, &[&pods.server, &plain], false);
        let _apps = [&pods.server, &plain].map(|pod| App::start(pod, Behaviour::Echo, PORT));
        let outcomes = [(); 4].map(|()| pods.client.converse(SERVICE[0], SERVICE_PORT, SECRET));
        assert_eq!(outcomes, [SECRET, of_plain, SECRET, of_plain], "{mode}");
        let client = pods.client.sidecar();
        wait::until("all are logged", || client.connections().len() == 4);
        for (number, entry) in client.connections().iter().enumerate() {
            if number % 2 == 0 {
                assert_mutual(entry, &pods.client, &pods.server);
            } else if mode == "strict" {
                assert_eq!(
                    (&*entry.tls, &*entry.close),
                    ("failed", "plaintext_refused")
                );
            } else {
                assert_eq!((&*entry.tls, &*entry.close), ("no_peer_option", "eof"));
            }
        }
    }
}

#[test]
fn a_pod_reaches_itself_by_the_address_of_a_service() {
    let mut pods = Pods::routed();
    translate(&pods.network, &[&pods.client], true);
    pods.mesh(Some(STRICT), None);
    let app = App::start(&pods.client, Behaviour::Echo, PORT);
    for service in SERVICE {
        assert_eq!(pods.client.converse(service, SERVICE_PORT, SECRET), SECRET);
        assert_mutual(
            &entry(&pods.client, (service, SERVICE_PORT)),
            &pods.client,
            &pods.client,
        );
    }
    app.sessions_when(SERVICE.len());
}

#[test]
fn a_service_that_leads_nowhere_is_told_apart_by_how() {
    let mut pods = Pods::routed();
    for service in SERVICE {
        // What is not translated is forwarded as it is.
        let router = pods.network.sandbox().namespace();
        router.ip(&format!("route add {service} dev {}", pods.server.role()));
    }
    pods.network.nft(
        "table inet proxy {
            chain forward {
                type filter hook forward priority 0
                tcp dport 81 reject with icmpx type port-unreachable
                tcp dport 82 reject with icmpx type host-unreachable
                tcp dport 83 drop
                tcp dport 84 reject with tcp reset
            }
        }",
    );
    // An error that comes while the SYN is still being sent counts when the SYN is sent again.
    pods.mesh(Some(&["--connect-timeout", "3s"]), None);
    for service in SERVICE {
        for (port, close) in [
            (81, "connect_refused"),
            (82, "connect_unreachable"),
            (83, "connect_timeout"),
            (84, "connect_refused"),
        ] {
            assert_eq!(
                pods.client.converse(service, port, SECRET),
                "reset",
                "{close}"
            );
            let failure = entry(&pods.client, (service, port));
            assert_eq!(
                (&*failure.tls, &*failure.close),
                ("pending", close),
                "{failure:?}"
            );
            let reason = failure.reason.as_deref().unwrap_or_default();
            let destination = SocketAddr::new(service, port).to_string();
            assert!(reason.contains(&destination), "{reason}");
        }
    }
}

#[test]
fn a_wire_that_loses_and_reorders_packets_loses_no_byte() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _wire = unsettle(&pods);
    let _app = App::start(&pods.server, Behaviour::Echo, PORT);
    assert_eq!(bulk(&pods, pods.server.v4()), whole());
    let (outbound, _) = pods.mutual_connection(PORT);
    assert_eq!((outbound.sent, outbound.received), (BULK, BULK));
    for pod in [&pods.client, &pods.server] {
        for event in ["TCPFastRetrans", "TCPOFOQueue", "TCPSACKReorder"] {
            assert_ne!(counter(pod, event), 0, "{event} on {}", pod.role());
        }
    }
}

#[test]
fn a_wire_that_loses_and_reorders_packets_fails_no_short_connection() {
    // With a handshake for each of them, and with few.
    for reuse in ["off", "10s"] {
        let flags = [STRICT, &["--reuse", reuse]].concat();
        let pods = Pods::meshed_with(&flags, &flags);
        let _wire = unsettle(&pods);
        let app = App::start(&pods.server, Behaviour::Echo, PORT);
        let address = pods.server.v4().to_string();
        let outcomes: Value = pods.client.snippet(MANY).arg(address).facts();
        assert_eq!(outcomes, json!({ "others": [] }), "reuse {reuse}");
        app.sessions_when(MANY_ARE);
        for (pod, direction) in [(&pods.client, "outbound"), (&pods.server, "inbound")] {
            let sidecar = pod.sidecar();
            wait::until("all are logged", || sidecar.connections().len() >= MANY_ARE);
            for entry in sidecar.connections() {
                assert_eq!(
                    (&*entry.direction, &*entry.tls, &*entry.close),
                    (direction, "mutual", "eof"),
                    "reuse {reuse}: {entry:?}"
                );
            }
        }
        assert_ne!(counter(&pods.server, "RetransSegs"), 0);
    }
}

#[test]
fn no_mode_minds_a_vxlan_tunnel() {
    no_mode_minds_a_tunnel(Encapsulation::Vxlan);
}

#[test]
#[ignore = "needs Geneve, which not every kernel has: cargo xtask vm runs it"]
fn no_mode_minds_a_geneve_tunnel() {
    no_mode_minds_a_tunnel(Encapsulation::Geneve);
}

#[track_caller]
fn no_mode_minds_a_tunnel(encapsulation: Encapsulation) {
    let tunnel = Tunnel::new(encapsulation);
    let every = EveryMode::mesh(through(&tunnel));
    for address in addresses(&every.pods.server) {
        every.assert_fates(address, &WITH_OPTION);
    }
}

#[test]
fn in_a_vxlan_tunnel_everything_is_encrypted_and_nothing_cut_into_fragments() {
    in_a_tunnel_everything_is_encrypted(Encapsulation::Vxlan);
}

#[test]
#[ignore = "needs Geneve, which not every kernel has: cargo xtask vm runs it"]
fn in_a_geneve_tunnel_everything_is_encrypted_and_nothing_cut_into_fragments() {
    in_a_tunnel_everything_is_encrypted(Encapsulation::Geneve);
}

#[track_caller]
fn in_a_tunnel_everything_is_encrypted(encapsulation: Encapsulation) {
    let tunnel = Tunnel::new(encapsulation);
    let mut pods = through(&tunnel);
    let _app = App::start(&pods.server, Behaviour::Echo, PORT);
    for is_meshed in [false, true] {
        if is_meshed {
            pods.mesh(Some(STRICT), Some(STRICT));
        }
        let capture = tunnel.capture(&pods.server);
        assert_eq!(pods.client.converse(pods.server.v4(), PORT, SECRET), SECRET);
        let wire = capture.finish();
        assert_eq!(wire.contains(SECRET), !is_meshed);
        // All of it was wrapped.
        assert!(wire.streams.is_empty() && !wire.datagrams.is_empty());
    }
    pods.mutual_connection(PORT);
    assert_eq!(bulk(&pods, pods.server.v6()), whole());
    for node in &tunnel.nodes {
        assert_eq!(node.sandbox().namespace().counter("FragCreates"), 0);
    }
}

/// How many bytes go each way in bulk.
const BULK: u64 = 4 << 20;

/// Sends much, while it reads as much back.
const TRANSFER: &str = r"
import random, threading
sock = dial(sys.argv[1], sys.argv[2])
data = random.Random(1).randbytes(int(sys.argv[3]))
def send():
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
count, digest, end = drain(sock)
sender.join()
report(count=count, whole=digest == hashlib.sha256(data).hexdigest(), end=end)
";

/// What comes of it.
fn bulk(pods: &Pods, server: impl Into<IpAddr>) -> Value {
    let arguments = [
        server.into().to_string(),
        PORT.to_string(),
        BULK.to_string(),
    ];
    pods.client.snippet(TRANSFER).args(arguments).facts()
}

/// What should.
fn whole() -> Value {
    json!({ "count": BULK, "whole": true, "end": "eof" })
}

/// How many connections are many.
const MANY_ARE: usize = 100;

/// Has that many conversations, some at once, and tells of those in which the answer was not what was said.
const MANY: &str = r#"
from concurrent.futures import ThreadPoolExecutor
said = [f"rhinoceros {number}" for number in range(100)]
with ThreadPoolExecutor(8) as pool:
    heard = list(pool.map(lambda words: converse(sys.argv[1], 8080, words), said))
report(others=[pair for pair in zip(said, heard) if pair[0] != pair[1]])
"#;

/// Loses one packet in a hundred, and lets another be overtaken.
#[must_use]
fn unsettle(pods: &Pods) -> Process {
    pods.network.unsettle([&pods.client, &pods.server], 100, 50)
}

/// Two pods without sidecars on the nodes that a tunnel joins.
fn through(tunnel: &Tunnel) -> Pods {
    let [clients, servers] = &tunnel.nodes;
    let pods = Pods::on([clients, servers]);
    Tunnel::fit(&pods.client);
    Tunnel::fit(&pods.server);
    pods
}

/// Lets the router pass on no packets over IPv4 but short ones, whatever its ports could carry.
fn narrow(pods: &Pods) {
    for pod in [&pods.client, &pods.server] {
        let (address, port) = (pod.v4(), pod.role());
        let router = pods.network.sandbox().namespace();
        router.ip(&format!("route replace {address} dev {port} mtu lock 1280"));
    }
}

/// Has the router translate the addresses of the service to those of these pods, in turn, as kube-proxy
/// does; also that of the client, to its own, if `hides`. Ports stay the same, but for that of the service.
fn translate(router: &Network, endpoints: &[&Pod], hides: bool) {
    let endpoint = |family: &str, address: &dyn Fn(&Pod) -> IpAddr| {
        let to = |(number, pod): (usize, &&Pod)| format!("{number} : {}", address(pod));
        let map: Vec<_> = endpoints.iter().enumerate().map(to).collect();
        let (count, map) = (endpoints.len(), map.join(", "));
        format!("dnat {family} to numgen inc mod {count} map {{ {map} }}")
    };
    let [service4, service6] = SERVICE;
    let target4 = endpoint("ip", &|pod| pod.v4().into());
    let target6 = endpoint("ip6", &|pod| pod.v6().into());
    let hide = if hides {
        "ct status dnat masquerade"
    } else {
        ""
    };
    router.nft(&format!(
        "table inet proxy {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                ip daddr {service4} tcp dport {SERVICE_PORT} {target4} : {PORT}
                ip6 daddr {service6} tcp dport {SERVICE_PORT} {target6} : {PORT}
                ip daddr {service4} {target4}
                ip6 daddr {service6} {target6}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                {hide}
            }}
        }}"
    ));
}

/// What the app of a client sees of a conversation.
#[derive(Deserialize)]
struct Seen {
    own: SocketAddr,
    peer: SocketAddr,
    answer: String,
}

/// Tells a server a secret.
#[track_caller]
fn say(client: &Pod, address: IpAddr, port: u16) -> Seen {
    let arguments = [&*address.to_string(), &*port.to_string(), SECRET];
    client.snippet(SAY).args(arguments).facts()
}

/// A pod's addresses, one of each family.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    [pod.v4().into(), pod.v6().into()].into_iter()
}

/// What the pod's sidecar says of the connection to this address.
#[track_caller]
fn entry(pod: &Pod, destination: (IpAddr, u16)) -> Connection {
    let sidecar = pod.sidecar();
    sidecar.connection(|entry| entry.destination == destination.into())
}

/// Checks that a sidecar says that it spoke mutual TLS with another pod.
#[track_caller]
fn assert_mutual(entry: &Connection, own: &Pod, peer: &Pod) {
    assert_eq!((&*entry.tls, &*entry.close), ("mutual", "eof"), "{entry:?}");
    let identities = [own, peer].map(|pod| Some(pod.identity()));
    assert_eq!(
        [&entry.own, &entry.peer],
        identities.each_ref(),
        "{entry:?}"
    );
}

/// One of the counters of the pod's network.
#[track_caller]
fn counter(pod: &Pod, name: &str) -> u64 {
    pod.sandbox().namespace().counter(name)
}
