//! The proxy between real sockets on loopback, with a kernel that says what the test wants.

mod admission;
mod legs;
mod naming;
mod reuse;
mod size;
mod standing;

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use spiffe::SpiffeId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{accept::Accepted, tcp::Tcp, *};
use crate::{
    identity::testing::{ca, id},
    policy::{Exclusions, Expectations, Failure, Mode, ModeTable, Naming, Probes},
    telemetry::{AccessLog, Choice, Format, Options},
    tls::Protocol,
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where peers are.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Connections that may be in the making at once.
const HANDSHAKES: usize = 4;

/// How long a wire is kept.
const REUSE: Duration = Duration::from_mins(1);

/// What the kernel side would say.
#[derive(Default)]
struct FakeKernel {
    original_destination: Option<OrigDst>,
    peer_is_meshed: bool,
    app_refused: AtomicBool,
    /// Whom the sockets are connected to that it was asked the cookies of, and these.
    cookies: Mutex<Vec<(SocketAddr, u64)>>,
}

impl FakeKernel {
    /// The app wanted to connect here, where no sidecar is.
    fn steered_to(destination: SocketAddr) -> Self {
        Self {
            original_destination: Some(OrigDst(destination)),
            ..Self::default()
        }
    }

    /// The peer has a sidecar.
    fn meshed(self) -> Self {
        Self {
            peer_is_meshed: true,
            ..self
        }
    }
}

impl Kernel for FakeKernel {
    fn app_refused(&self, _destination: OrigDst) {
        self.app_refused.store(true, Ordering::Relaxed);
    }

    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        let socket = SockRef::from(&socket);
        let peer = socket.peer_addr()?.as_socket().expect("an IP address");
        let cookie = socket.cookie()?;
        let mut cookies = self.cookies.lock().expect("no panic while asking");
        cookies.push((peer, cookie));
        Ok(cookie)
    }

    fn mark_to_app(&self, _socket: BorrowedFd<'_>, _client: ClientAddr) -> io::Result<()> {
        Ok(())
    }

    fn mark_upstream(&self, _socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn original_destination(&self, _accepted: BorrowedFd<'_>) -> io::Result<Option<OrigDst>> {
        Ok(self.original_destination)
    }

    fn peer_is_meshed(&self, _socket: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self.peer_is_meshed)
    }
}

/// An access log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while writing").clone()).expect("text")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().expect("no panic while writing");
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn modes(direction: Direction, mode: Mode) -> ModeTable {
    ModeTable::new(direction, mode, &[]).expect("no overrides")
}

/// One mode both ways.
fn policy(mode: Mode) -> Policy {
    Policy {
        inbound: modes(Direction::Inbound, mode),
        outbound: modes(Direction::Outbound, mode),
        inbound_failure: Failure::Closed,
        outbound_failure: Failure::Closed,
        exclusions: Exclusions::default(),
        probes: Probes::default(),
        authorization: None,
        expectations: Expectations::default(),
        naming: Naming::default(),
    }
}

/// A proxy in one mode both ways, and its access log.
fn proxy(kernel: FakeKernel, mode: Mode, tls: Tls) -> (Arc<Proxy<FakeKernel>>, Log) {
    let policy = watch::channel(Arc::new(policy(mode))).1;
    proxy_under(policy, kernel, tls)
}

/// A proxy under a policy that may change, and its access log.
fn proxy_under(
    policy: watch::Receiver<Arc<Policy>>,
    kernel: FakeKernel,
    tls: Tls,
) -> (Arc<Proxy<FakeKernel>>, Log) {
    let log = Log::default();
    let access_log = AccessLog::new(Format::Text, Choice::default(), log.clone(), || 0);
    let directory = Directory::default();
    let proxy = Proxy {
        kernel: Arc::new(kernel),
        telemetry: Telemetry::new(Options {
            access_log,
            directory: directory.clone(),
            ..Options::default()
        })
        .expect("metrics of unique names"),
        identity: watch::channel(Some(Arc::new(tls))).1,
        policy,
        directory,
        establishing: Establishing::new(HANDSHAKES),
        spares: Spares::new(REUSE),
        limits: Limits {
            connect: DEADLINE,
            handshakes: HANDSHAKES,
            handshake: Duration::from_millis(500),
            identity: Duration::from_millis(500),
            reuse: REUSE,
        },
    };
    (Arc::new(proxy), log)
}

/// Two workloads of one trust domain, whose bytes a test can read as they are.
fn two_workloads() -> (Tls, Tls) {
    let (a, b) = two_that_keep_wires();
    (a.speaking(Protocol::Bytes), b.speaking(Protocol::Bytes))
}

/// Two workloads of one trust domain.
fn two_that_keep_wires() -> (Tls, Tls) {
    let (_dir, ca) = ca("example.org");
    let tls = |path| {
        let svid = ca
            .issue(&id(path), Duration::from_hours(1))
            .expect("an SVID");
        Tls::new(&svid)
    };
    (tls("a"), tls("b"))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

/// A connection of an app, and the proxy's end of it.
async fn accepted() -> (TcpStream, Accepted) {
    let (listener, address) = listen().await;
    let (app, proxy) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, client) = proxy.expect("a connection");
    let accepted = Accepted {
        stream: Tcp::new(stream),
        client: ClientAddr(client),
    };
    (app.expect("a connection"), accepted)
}

/// Opens a connection through the outbound side of a proxy.
async fn connect(proxy: &Arc<Proxy<FakeKernel>>) -> TcpStream {
    let (app, accepted) = accepted().await;
    let proxy = Arc::clone(proxy);
    let permit = proxy.establishing.admit(Direction::Outbound).expect("room");
    tokio::spawn(async move { outbound::serve(&proxy, accepted, permit).await });
    app
}

/// Opens a connection through the inbound side of a proxy to an app on `destination`.
async fn arrive(proxy: &Arc<Proxy<FakeKernel>>, destination: SocketAddr) -> TcpStream {
    let (peer, accepted) = accepted().await;
    let proxy = Arc::clone(proxy);
    let permit = proxy.establishing.admit(Direction::Inbound).expect("room");
    tokio::spawn(async move {
        let drain = Drain::default();
        inbound::serve_to(&proxy, accepted, permit, OrigDst(destination), &drain).await;
    });
    peer
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(DEADLINE, listener.accept())
        .await
        .expect("a connection in time")
        .expect("a connection")
        .0
}

async fn was_reset(mut stream: TcpStream) -> bool {
    let read = timeout(DEADLINE, stream.read(&mut [0]))
        .await
        .expect("an end in time");
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

async fn logged(log: &Log, words: &str) {
    timeout(DEADLINE, async {
        while !log.text().contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the access log has no {words:?}: {}", log.text()));
}

async fn expect_bytes(stream: &mut (impl AsyncReadExt + Unpin), expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(DEADLINE, stream.read_exact(&mut bytes))
        .await
        .expect("bytes in time")
        .expect("bytes");
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn a_plain_peer_is_reached_in_plaintext() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address);
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let mut app = connect(&proxy).await;
    let mut server = accept(&server).await;
    server
        .write_all(b"220 ready")
        .await
        .expect("an open connection");
    expect_bytes(&mut app, b"220 ready").await;
    app.write_all(b"EHLO").await.expect("an open connection");
    expect_bytes(&mut server, b"EHLO").await;
    drop((app, server));
    logged(&log, "tls=no_peer_option sent=4 received=9").await;
}

#[tokio::test]
async fn a_meshed_peer_is_reached_by_mutual_tls() {
    let (own, peer) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let mut app = connect(&proxy).await;
    let (mut server, client) = peer
        .accept(accept(&server).await)
        .await
        .expect("a handshake");
    assert_eq!(client.to_string(), "spiffe://example.org/a");
    app.write_all(b"secret").await.expect("an open connection");
    expect_bytes(&mut server, b"secret").await;
    drop((app, server));
    logged(
        &log,
        "tls=mutual own=spiffe://example.org/a peer=spiffe://example.org/b sent=6",
    )
    .await;
}

#[tokio::test]
async fn strict_sends_a_plain_peer_nothing_but_a_hello() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address);
    let (proxy, log) = proxy(kernel, Mode::Strict, own);
    let mut app = connect(&proxy).await;
    app.write_all(b"secret").await.expect("an open connection");
    let mut server = accept(&server).await;
    let mut bytes = Vec::new();
    // It ends when the handshake has timed out.
    let _ = timeout(DEADLINE, server.read_to_end(&mut bytes))
        .await
        .expect("an end in time");
    assert_eq!(bytes[..2], [0x16, 0x03]);
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    assert!(was_reset(app).await);
    logged(&log, "close=plaintext_refused").await;
}

#[tokio::test]
async fn a_peer_of_another_trust_domain_is_refused() {
    let (own, _) = two_workloads();
    let (_dir, foreign) = ca("elsewhere.org");
    let elsewhere = SpiffeId::new("spiffe://elsewhere.org/b").expect("a SPIFFE ID");
    let foreign = foreign
        .issue(&elsewhere, Duration::from_hours(1))
        .expect("an SVID");
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let app = connect(&proxy).await;
    let handshake = Tls::new(&foreign).accept(accept(&server).await).await;
    assert!(handshake.is_err());
    assert!(was_reset(app).await);
    logged(&log, "tls=failed sent=0 received=0").await;
    logged(&log, "close=peer_foreign").await;
}

#[tokio::test]
async fn garbage_behind_the_option_is_no_reason_for_plaintext() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let app = connect(&proxy).await;
    let mut server = accept(&server).await;
    server
        .write_all(b"SSH-2.0-garbage\r\n")
        .await
        .expect("an open connection");
    assert!(was_reset(app).await);
    logged(&log, "tls=failed sent=0 received=0").await;
    logged(&log, "close=handshake_not_tls").await;
}

#[tokio::test]
async fn a_refused_dial_resets_the_app() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    drop(server);
    let kernel = FakeKernel::steered_to(address);
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    assert!(was_reset(connect(&proxy).await).await);
    logged(&log, "close=connect_refused").await;
}

#[tokio::test]
async fn a_connection_that_was_not_steered_is_reset() {
    let (own, _) = two_workloads();
    let (proxy, _) = proxy(FakeKernel::default(), Mode::Permissive, own);
    assert!(was_reset(connect(&proxy).await).await);
    let metrics = proxy.telemetry.render().expect("metrics");
    assert!(
        metrics.contains(
            r#"sidecar_connections_failed_total{direction="outbound",reason="not_steered"} 1"#
        ),
        "{metrics}"
    );
    // The inbound listener's own port is on loopback, where nothing is steered from.
    let (peer, accepted) = accepted().await;
    let permit = proxy.establishing.admit(Direction::Inbound).expect("room");
    inbound::serve(&proxy, accepted, permit, &Drain::default()).await;
    assert!(was_reset(peer).await);
}

#[tokio::test]
async fn a_server_that_speaks_first_does_not_wait_for_a_plain_client() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, _) = proxy(FakeKernel::default(), Mode::Permissive, own);
    let mut peer = arrive(&proxy, address).await;
    let mut app = accept(&app).await;
    app.write_all(b"220 ready")
        .await
        .expect("an open connection");
    expect_bytes(&mut peer, b"220 ready").await;
}

#[tokio::test]
async fn strict_refuses_a_plain_client_before_the_app_hears_of_it() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, log) = proxy(FakeKernel::default(), Mode::Strict, own);
    let mut peer = arrive(&proxy, address).await;
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("an open connection");
    assert!(was_reset(peer).await);
    logged(&log, "close=plaintext_refused").await;
    assert!(timeout(Duration::ZERO, app.accept()).await.is_err());
}

#[tokio::test]
async fn tls_is_recognised_when_the_option_was_lost() {
    for mode in [Mode::Permissive, Mode::Strict] {
        let (own, other) = two_workloads();
        let (app, address) = listen().await;
        let (proxy, log) = proxy(FakeKernel::default(), mode, own);
        let peer = arrive(&proxy, address).await;
        let (mut peer, server) = timeout(DEADLINE, other.connect(HERE, peer))
            .await
            .expect("a handshake in time")
            .expect("a handshake");
        assert_eq!(server.to_string(), "spiffe://example.org/a");
        peer.write_all(b"secret").await.expect("an open connection");
        expect_bytes(&mut accept(&app).await, b"secret").await;
        drop(peer);
        logged(&log, "tls=mutual").await;
    }
}

#[tokio::test]
async fn an_app_that_is_gone_is_forgotten() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    drop(app);
    let (proxy, log) = proxy(FakeKernel::default(), Mode::Permissive, own);
    assert!(was_reset(arrive(&proxy, address).await).await);
    logged(&log, "close=connect_refused").await;
    assert!(proxy.kernel.app_refused.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_reset_of_one_leg_is_a_reset_of_the_other() {
    let (own, _) = two_workloads();
    let (server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address);
    let (proxy, log) = proxy(kernel, Mode::Permissive, own);
    let app = connect(&proxy).await;
    let server = accept(&server).await;
    app.set_zero_linger().expect("an open connection");
    drop(app);
    assert!(was_reset(server).await);
    logged(&log, "close=client_reset").await;
}

/// How many connections failed for this reason.
fn failed(proxy: &Proxy<FakeKernel>, direction: &str, reason: &str) -> usize {
    let line = format!(
        r#"sidecar_connections_failed_total{{direction="{direction}",reason="{reason}"}} "#
    );
    let metrics = proxy.telemetry.render().expect("metrics");
    let count = metrics.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn handshakes_that_servers_never_finish_end_and_make_room() {
    let (own, _) = two_workloads();
    // The kernel accepts for it; it says nothing.
    let (_server, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, _) = proxy(kernel, Mode::Permissive, own);
    let mut apps = Vec::new();
    for _ in 0..HANDSHAKES {
        apps.push(connect(&proxy).await);
    }
    assert!(proxy.establishing.admit(Direction::Outbound).is_none());
    for app in apps {
        assert!(was_reset(app).await);
    }
    assert_eq!(failed(&proxy, "outbound", "handshake_timeout"), HANDSHAKES);
    assert!(proxy.establishing.admit(Direction::Outbound).is_some());
}

#[tokio::test]
async fn handshakes_that_clients_never_finish_end_and_make_room() {
    let (own, _) = two_workloads();
    let (_app, address) = listen().await;
    let (proxy, _) = proxy(FakeKernel::default().meshed(), Mode::Permissive, own);
    let mut peers = Vec::new();
    for _ in 0..HANDSHAKES {
        peers.push(arrive(&proxy, address).await);
    }
    assert!(proxy.establishing.admit(Direction::Inbound).is_none());
    for peer in peers {
        assert!(was_reset(peer).await);
    }
    assert_eq!(failed(&proxy, "inbound", "handshake_timeout"), HANDSHAKES);
    assert!(proxy.establishing.admit(Direction::Inbound).is_some());
}

#[tokio::test]
async fn a_hello_that_is_never_finished_takes_room_for_a_time_and_is_let_go() {
    /// The beginning of a `ClientHello` whose rest never comes.
    const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00];
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, log) = proxy(FakeKernel::default(), Mode::Permissive, own);
    let mut silent = Vec::new();
    for _ in 0..=HANDSHAKES {
        silent.push((arrive(&proxy, address).await, accept(&app).await));
    }
    let (mut late, _at_the_app) = silent.pop().expect("one more");
    let (mut plain, mut its_app) = (arrive(&proxy, address).await, accept(&app).await);
    for (peer, _) in &mut silent {
        peer.write_all(HALF_A_HELLO).await.expect("an open leg");
    }
    timeout(DEADLINE, async {
        while proxy.establishing.admit(Direction::Inbound).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("they take all the room");
    // One more that begins a handshake is one too many; one that speaks plainly is none.
    late.write_all(HALF_A_HELLO).await.expect("an open leg");
    assert!(was_reset(late).await);
    logged(&log, "close=overloaded").await;
    plain.write_all(b"GET /").await.expect("an open leg");
    expect_bytes(&mut its_app, b"GET /").await;

    for (peer, at_the_app) in silent {
        assert!(was_reset(peer).await);
        assert!(was_reset(at_the_app).await);
    }
    assert_eq!(failed(&proxy, "inbound", "handshake_timeout"), HANDSHAKES);
    assert!(proxy.establishing.admit(Direction::Inbound).is_some());
}

#[tokio::test]
async fn idle_plaintext_connections_are_not_in_the_making() {
    let (own, peer) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, log) = proxy(FakeKernel::default(), Mode::Permissive, own);
    let mut idle = Vec::new();
    for _ in 0..HANDSHAKES {
        idle.push((arrive(&proxy, address).await, accept(&app).await));
    }
    let permits = timeout(DEADLINE, async {
        loop {
            let permits: Vec<_> = (0..HANDSHAKES)
                .filter_map(|_| proxy.establishing.admit(Direction::Inbound))
                .collect();
            if permits.len() == HANDSHAKES {
                return permits;
            }
            tokio::task::yield_now().await;
        }
    });
    let _all = permits.await.expect("the idle ones hold none");
    // One that begins a handshake now is one too many.
    let (late, _at_the_app) = idle.swap_remove(0);
    assert!(peer.connect(HERE, late).await.is_err());
    logged(&log, "close=overloaded").await;
}

#[tokio::test]
async fn connections_above_the_limit_are_reset_and_those_that_stand_go_on() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, _) = proxy(FakeKernel::steered_to(address), Mode::Permissive, own);
    let (listener, dialled) = listen().await;
    prepare_listener(&listener).expect("a socket");
    let serve = Arc::clone(&proxy).serve(Direction::Outbound, listener, Drain::default());
    tokio::spawn(serve);
    let mut open = TcpStream::connect(dialled).await.expect("a connection");
    let mut server = accept(&app).await;
    open.write_all(b"before").await.expect("an open connection");
    expect_bytes(&mut server, b"before").await;

    let others: Vec<_> = (0..HANDSHAKES)
        .map(|_| proxy.establishing.admit(Direction::Outbound).expect("room"))
        .collect();
    let late = TcpStream::connect(dialled).await.expect("a connection");
    assert!(was_reset(late).await);
    assert_eq!(failed(&proxy, "outbound", "overloaded"), 1);
    open.write_all(b"during").await.expect("an open connection");
    expect_bytes(&mut server, b"during").await;

    drop(others);
    let _afterwards = TcpStream::connect(dialled).await.expect("a connection");
    accept(&app).await;
}

#[tokio::test]
async fn who_waits_to_be_accepted_when_the_drain_begins_is_served() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, _) = proxy(FakeKernel::steered_to(address), Mode::Permissive, own);
    let (listener, dialled) = listen().await;
    let drain = Drain::default();
    tokio::spawn(proxy.serve(Direction::Outbound, listener, drain.clone()));
    // This thread runs nothing else meanwhile: the connection waits in the kernel's queue.
    let mut job = std::net::TcpStream::connect(dialled).expect("a connection");
    job.write_all(b"all there is to say")
        .expect("an open connection");
    drop(job);
    let draining = tokio::spawn(async move { drain.run(Duration::from_mins(1)).await });
    let mut server = accept(&app).await;
    expect_bytes(&mut server, b"all there is to say").await;
    drop(server);
    draining.await.expect("no panic");
}

#[tokio::test]
async fn peers_on_the_network_are_asked_whether_they_are_alive() {
    let (own, _) = two_workloads();
    let (app, address) = listen().await;
    let (proxy, _) = proxy(FakeKernel::default(), Mode::Permissive, own);
    let (_peer, accepted) = accepted().await;
    let (network_leg, permit) = (
        accepted.stream.clone(),
        proxy.establishing.admit(Direction::Inbound).expect("room"),
    );
    tokio::spawn(async move {
        inbound::serve_to(
            &proxy,
            accepted,
            permit,
            OrigDst(address),
            &Drain::default(),
        )
        .await;
    });
    let _app = accept(&app).await;
    let upstream = dial::upstream(&FakeKernel::default(), OrigDst(address), DEADLINE).await;
    for leg in [network_leg, upstream.expect("a connection")] {
        let leg = SockRef::from(&*leg);
        assert!(leg.keepalive().expect("an open socket"));
        let silence = leg.tcp_keepalive_time().expect("an open socket");
        assert_eq!(silence, Duration::from_mins(1));
    }
}
