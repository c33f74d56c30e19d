//! Connections of apps that follow one another between the same two sidecars.

use std::sync::atomic::AtomicUsize;

use tokio::{sync::mpsc, task::JoinHandle};

use super::*;

/// A client's proxy, a server's, and the server's app, which all listen where they would in a mesh.
struct Mesh {
    client: Arc<Proxy<FakeKernel>>,
    client_log: Log,
    /// Who the client is, to be changed.
    client_identity: watch::Sender<Option<Arc<Tls>>>,
    server: Arc<Proxy<FakeKernel>>,
    server_log: Log,
    server_identity: watch::Sender<Option<Arc<Tls>>>,
    server_policy: watch::Sender<Arc<Policy>>,
    /// Ends the server's proxy.
    drain: Drain,
    /// How many wires the server has seen.
    wires: Arc<AtomicUsize>,
    /// What the server's app is connected to.
    app: mpsc::UnboundedReceiver<TcpStream>,
    /// Tells who is meant by each connection that comes.
    steering: JoinHandle<()>,
}

/// Where the server says that it is reached.
enum Reached {
    /// Where it was dialled.
    There,
    /// Somewhere else, as behind an address that is translated.
    Elsewhere,
}

impl Mesh {
    async fn new() -> Self {
        Self::of(Reached::There, two_that_keep_wires()).await
    }

    async fn of(reached: Reached, (client, server): (Tls, Tls)) -> Self {
        let (listener, address) = listen().await;
        let destination = match reached {
            Reached::There => OrigDst(address),
            Reached::Elsewhere => OrigDst(SocketAddr::new([127, 0, 0, 9].into(), address.port())),
        };
        let kernel = FakeKernel::steered_to(address).meshed();
        let (client_identity, identity) = watch::channel(Some(Arc::new(client)));
        let under = watch::channel(Arc::new(policy(Mode::Permissive))).1;
        let (client, client_log) = proxy_of(under, kernel, identity);
        let (server_identity, identity) = watch::channel(Some(Arc::new(server)));
        let (server_policy, under) = watch::channel(Arc::new(policy(Mode::Permissive)));
        let (server, server_log) = proxy_of(under, FakeKernel::default().meshed(), identity);
        let wires = Arc::new(AtomicUsize::new(0));
        let drain = Drain::default();
        let (apps, app) = mpsc::unbounded_channel();
        let steering = tokio::spawn(steer(
            listener,
            Arc::clone(&server),
            destination,
            drain.clone(),
            apps,
            Arc::clone(&wires),
        ));
        Self {
            client,
            client_log,
            client_identity,
            server,
            server_log,
            server_identity,
            server_policy,
            drain,
            wires,
            app,
            steering,
        }
    }

    /// A connection of the client's app, and the server's app's end of it.
    async fn connect(&mut self) -> (TcpStream, TcpStream) {
        let client = connect(&self.client).await;
        let server = timeout(DEADLINE, self.app.recv()).await;
        (
            client,
            server
                .expect("a connection in time")
                .expect("the app listens"),
        )
    }

    /// A connection on which everything goes well.
    async fn converse(&mut self) {
        let mut ends = self.connect().await;
        ends.0.write_all(b"question").await.expect("an open leg");
        expect_bytes(&mut ends.1, b"question").await;
        ends.1.write_all(b"the answer").await.expect("an open leg");
        expect_bytes(&mut ends.0, b"the answer").await;
        let before = self.ended();
        self.end(ends).await;
        self.has_ended(before + 1).await;
    }

    /// Both ends end, one after the other.
    async fn end(&self, (mut client, mut server): (TcpStream, TcpStream)) {
        for (this, other) in [(0, 1), (1, 0)] {
            let ends = [&mut client, &mut server];
            ends[this].shutdown().await.expect("an open leg");
            let end = timeout(DEADLINE, ends[other].read(&mut [0])).await;
            assert_eq!(end.expect("an end in time").expect("no reset"), 0);
        }
    }

    /// How many connections have ended in good order on both sides.
    fn ended(&self) -> usize {
        [&self.client_log, &self.server_log]
            .map(|log| log.text().matches("close=eof").count())
            .into_iter()
            .min()
            .expect("two logs")
    }

    async fn has_ended(&self, count: usize) {
        until("an end on both sides", || self.ended() == count).await;
        // The client keeps the wire right after it has written that.
        tokio::task::yield_now().await;
    }

    fn wires(&self) -> usize {
        self.wires.load(Ordering::Relaxed)
    }

    /// How many connections went over the wire of an earlier one, as each side has counted.
    fn reused(&self) -> [u64; 2] {
        [(&self.client, "outbound"), (&self.server, "inbound")].map(|(proxy, direction)| {
            let name = format!("sidecar_connections_reused_total{{direction=\"{direction}\"}} ");
            let metrics = proxy.telemetry.render().expect("metrics");
            let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
            count.expect(&name).parse().expect("a number")
        })
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.steering.abort();
    }
}

/// A proxy under a policy and an identity that may change.
fn proxy_of(
    policy: watch::Receiver<Arc<Policy>>,
    kernel: FakeKernel,
    identity: watch::Receiver<Option<Arc<Tls>>>,
) -> (Arc<Proxy<FakeKernel>>, Log) {
    let (_dir, ca) = ca("example.org");
    let svid = ca.issue(&id("unused"), Duration::from_hours(1));
    let (proxy, log) = proxy_under(policy, kernel, Tls::new(&svid.expect("an SVID")));
    let mut proxy = Arc::into_inner(proxy).expect("nobody has it yet");
    proxy.identity = identity;
    (Arc::new(proxy), log)
}

/// Gives what comes from the network to the server's proxy, and what comes from that to the app, which
/// dials from addresses of its own.
async fn steer(
    listener: TcpListener,
    server: Arc<Proxy<FakeKernel>>,
    destination: OrigDst,
    drain: Drain,
    apps: mpsc::UnboundedSender<TcpStream>,
    wires: Arc<AtomicUsize>,
) {
    loop {
        let (stream, client) = listener.accept().await.expect("a listener");
        if client.ip() != HERE {
            let _ = apps.send(stream);
            continue;
        }
        wires.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted {
            stream: Tcp::new(stream),
            client: ClientAddr(client),
        };
        let (server, until) = (Arc::clone(&server), drain.clone());
        let permit = server.establishing.admit(Direction::Inbound).expect("room");
        drain.spawn(async move {
            inbound::serve_to(&server, accepted, permit, destination, &until).await;
        });
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    timeout(DEADLINE, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("there was not {what}"));
}

#[tokio::test]
async fn connections_that_follow_one_another_share_a_wire_and_have_records_of_their_own() {
    let mut mesh = Mesh::new().await;
    for _ in 0..3 {
        mesh.converse().await;
    }
    assert_eq!((mesh.wires(), mesh.reused()), (1, [2, 2]));
    for (log, parties) in [
        (
            &mesh.client_log,
            "own=spiffe://example.org/a peer=spiffe://example.org/b",
        ),
        (
            &mesh.server_log,
            "own=spiffe://example.org/b peer=spiffe://example.org/a",
        ),
    ] {
        let record = format!("tls=mutual {parties} sent=8 received=10");
        assert_eq!(log.text().matches(&record).count(), 3, "{}", log.text());
    }
}

#[tokio::test]
async fn connections_at_the_same_time_have_a_wire_each() {
    let mut mesh = Mesh::new().await;
    let (first, second) = (mesh.connect().await, mesh.connect().await);
    mesh.end(first).await;
    mesh.end(second).await;
    mesh.has_ended(2).await;
    assert_eq!(mesh.wires(), 2);
    let (first, second) = (mesh.connect().await, mesh.connect().await);
    // The app of the server knows before the client does.
    until("a second use of both", || mesh.reused() == [2, 2]).await;
    assert_eq!(mesh.wires(), 2);
    mesh.end(first).await;
    mesh.end(second).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_on_every_connection() {
    let mut mesh = Mesh::new().await;
    for count in 1..=2 {
        let (mut client, mut server) = mesh.connect().await;
        server.write_all(b"220 ready").await.expect("an open leg");
        expect_bytes(&mut client, b"220 ready").await;
        mesh.end((client, server)).await;
        mesh.has_ended(count).await;
    }
    assert_eq!(mesh.wires(), 1);
}

#[tokio::test]
async fn a_reset_ends_the_wire_with_the_connection() {
    for server_resets in [false, true] {
        let mut mesh = Mesh::new().await;
        mesh.converse().await;
        let (client, server) = mesh.connect().await;
        assert_eq!(mesh.wires(), 1);
        let (resets, other) = if server_resets {
            (server, client)
        } else {
            (client, server)
        };
        SockRef::from(&resets)
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
        drop(resets);
        assert!(was_reset(other).await);
        mesh.converse().await;
        assert_eq!((mesh.wires(), mesh.reused()), (2, [1, 1]));
    }
}

#[tokio::test]
async fn an_address_that_stands_for_many_servers_is_dialled_each_time() {
    let mesh = Mesh::of(Reached::Elsewhere, two_that_keep_wires()).await;
    // The app is where the proxy was reached.
    let address = mesh.client.kernel.original_destination.expect("one").0;
    let elsewhere = SocketAddr::new([127, 0, 0, 9].into(), address.port());
    let listener = TcpListener::bind(elsewhere).await.expect("a free port");
    for count in 1..=2 {
        let client = connect(&mesh.client).await;
        let server = accept(&listener).await;
        mesh.end((client, server)).await;
        mesh.has_ended(count).await;
    }
    assert_eq!((mesh.wires(), mesh.reused()), (2, [0, 0]));
}

#[tokio::test]
async fn peers_that_keep_no_wires_are_served_as_before() {
    let (client, server) = two_that_keep_wires();
    let mut mesh = Mesh::of(Reached::There, (client, server.speaking(Protocol::Bytes))).await;
    mesh.converse().await;
    mesh.converse().await;
    assert_eq!((mesh.wires(), mesh.reused()), (2, [0, 0]));
}

#[tokio::test]
async fn a_wire_is_not_used_under_another_identity_than_it_was_made_under() {
    for of_server in [false, true] {
        let mut mesh = Mesh::new().await;
        mesh.converse().await;
        let identity = if of_server {
            &mesh.server_identity
        } else {
            &mesh.client_identity
        };
        // The same in everything but that it is new, as after a rotation.
        identity.send_modify(|identity| {
            let same = Tls::clone(identity.as_ref().expect("there is one"));
            *identity = Some(Arc::new(same));
        });
        mesh.converse().await;
        assert_eq!((mesh.wires(), mesh.reused()), (2, [0, 0]), "{of_server}");
        mesh.converse().await;
        assert_eq!(mesh.wires(), 2);
    }
}

#[tokio::test]
async fn a_certificate_that_is_over_ends_the_use_of_its_wires() {
    let (_dir, ca) = ca("example.org");
    let tls = |path, lifetime| Tls::new(&ca.issue(&id(path), lifetime).expect("an SVID"));
    let hour = Duration::from_hours(1);
    let mut mesh = Mesh::of(
        Reached::There,
        (tls("a", hour), tls("b", Duration::from_secs(2))),
    )
    .await;
    mesh.converse().await;
    let wire = mesh.client.spares.take(
        mesh.client.kernel.original_destination.expect("one"),
        mesh.client.identity.borrow().as_ref(),
    );
    let wire = wire.expect("it is kept").wire;
    let identity = mesh.client.identity.borrow().clone();
    assert!(wire.holds_under(identity.as_ref()));
    until("an end of its validity", || {
        std::thread::sleep(Duration::from_millis(50));
        !wire.holds_under(identity.as_ref())
    })
    .await;
}

#[tokio::test]
async fn who_is_denied_since_is_refused_once_and_told_by_a_record() {
    let mut mesh = Mesh::new().await;
    mesh.converse().await;
    mesh.server_policy
        .send_replace(Arc::new(admission::authorization(
            "rules: [{name: not-a, action: deny, identities: ['spiffe://example.org/a']}]",
        )));
    let client = connect(&mesh.client).await;
    assert!(was_reset(client).await);
    logged(&mesh.server_log, "close=denied").await;
    assert_eq!(mesh.server_log.text().matches("close=denied").count(), 1);
    assert_eq!(failed(&mesh.server, "inbound", "denied"), 1);
    assert_eq!((mesh.wires(), mesh.reused()), (2, [0, 0]));
    assert!(mesh.app.try_recv().is_err(), "the app has heard of it");
}

#[tokio::test]
async fn decisions_are_counted_for_every_connection() {
    let mut mesh = Mesh::new().await;
    mesh.server_policy
        .send_replace(Arc::new(admission::authorization(
            "rules: [{name: a, action: allow, identities: ['spiffe://example.org/a']}]",
        )));
    mesh.converse().await;
    mesh.converse().await;
    assert_eq!(mesh.reused(), [1, 1]);
    let metrics = mesh.server.telemetry.render().expect("metrics");
    let sample = r#"sidecar_authorization_decisions_total{decision="allow",rule="a"} 2"#;
    assert!(metrics.contains(sample), "{metrics}");
}

#[tokio::test]
async fn an_app_that_has_gone_is_told_as_it_would_be_of_a_new_connection() {
    let mut mesh = Mesh::new().await;
    mesh.converse().await;
    // What is under way stays; nobody listens any more, neither for the app nor for the wire.
    mesh.steering.abort();
    until("nobody who listens", || mesh.steering.is_finished()).await;
    let client = connect(&mesh.client).await;
    assert!(was_reset(client).await);
    logged(&mesh.client_log, "close=connect_refused").await;
    assert_eq!(mesh.reused(), [0, 0]);
}

#[tokio::test]
async fn a_server_that_drains_gives_its_idle_wires_up_and_the_client_dials_anew() {
    let mut mesh = Mesh::new().await;
    mesh.converse().await;
    // Nothing is open: it does not wait for what the client might still want.
    timeout(DEADLINE / 2, mesh.drain.run(DEADLINE))
        .await
        .expect("an end at once");
    until("a wire that is closed", || {
        let destination = mesh.client.kernel.original_destination.expect("one");
        let identity = mesh.client.identity.borrow().clone();
        mesh.client
            .spares
            .take(destination, identity.as_ref())
            .is_none()
    })
    .await;
}

#[tokio::test]
async fn a_wire_that_nobody_uses_is_closed_in_good_order() {
    let mut mesh = Mesh::new().await;
    mesh.converse().await;
    let client = Arc::clone(&mesh.client);
    let closing = tokio::spawn(async move {
        client.spares.close_idle(std::future::pending()).await;
    });
    assert_eq!(mesh.drain.open(), 1, "the server holds its end");
    // Nothing else happens meanwhile, so the clock goes ahead to what is due.
    tokio::time::pause();
    timeout(2 * REUSE, async {
        while mesh.drain.open() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("the server has been told");
    closing.abort();
}

/// Opens a connection through the outbound side of a proxy, on which the app has said something before
/// the proxy knows of it.
async fn connect_saying(proxy: &Arc<Proxy<FakeKernel>>, words: &[u8]) -> TcpStream {
    let (mut app, accepted) = accepted().await;
    app.write_all(words).await.expect("an open connection");
    let has_come = accepted.stream.readable().await;
    has_come.expect("an open connection");
    let proxy = Arc::clone(proxy);
    let permit = proxy.establishing.admit(Direction::Outbound).expect("room");
    tokio::spawn(async move { outbound::serve(&proxy, accepted, permit).await });
    app
}

#[tokio::test]
async fn what_the_app_says_at_once_comes_once_whether_or_not_the_wire_is_taken() {
    // More than goes with the first word, too.
    for (is_taken, length) in [(true, 5), (true, 100_000), (false, 5), (false, 100_000)] {
        let mut mesh = Mesh::new().await;
        mesh.converse().await;
        if !is_taken {
            mesh.server_identity.send_modify(|identity| {
                let same = Tls::clone(identity.as_ref().expect("there is one"));
                *identity = Some(Arc::new(same));
            });
        }
        let words: Vec<u8> = (0..length).map(|n: u32| (n % 251) as u8).collect();
        let client = connect_saying(&mesh.client, &words).await;
        let server = timeout(DEADLINE, mesh.app.recv()).await;
        let mut server = server.expect("a connection in time").expect("one");
        expect_bytes(&mut server, &words).await;
        mesh.end((client, server)).await;
        mesh.has_ended(2).await;
        assert_eq!(mesh.wires(), if is_taken { 1 } else { 2 });
        for log in [&mesh.client_log, &mesh.server_log] {
            let record = format!("sent={length} received=0");
            assert_eq!(log.text().matches(&record).count(), 1, "{}", log.text());
        }
    }
}

/// The server's end of a wire that a test holds, and on which one connection has ended.
async fn wire_of_test(
    proxy: &Arc<Proxy<FakeKernel>>,
    log: &Log,
    server: &Tls,
    listener: &TcpListener,
) -> wire::testing::Held {
    let mut app = connect(proxy).await;
    let held = accept(listener).await;
    let reached = held.local_addr().expect("an open connection");
    let (stream, _) = server.accept(held).await.expect("a handshake");
    let mut wire = wire::testing::server(stream, reached);
    app.shutdown().await.expect("an open leg");
    assert_eq!(wire.read(&mut [0]).await.expect("no reset"), 0);
    wire.shutdown().await.expect("an open wire");
    assert_eq!(app.read(&mut [0]).await.expect("no reset"), 0);
    logged(log, "close=eof").await;
    tokio::task::yield_now().await;
    wire
}

#[tokio::test]
async fn what_a_server_may_have_heard_before_it_broke_off_is_not_said_again() {
    let (client, server) = two_that_keep_wires();
    let (listener, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, client);
    let mut wire = wire_of_test(&proxy, &log, &server, &listener).await;
    let app = connect_saying(&proxy, b"once").await;
    assert!(wire.is_opened().await.expect("an open wire"));
    let socket = wire.stream().get_ref().0;
    let at_once = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    at_once.expect("an open socket");
    drop(wire);
    assert!(was_reset(app).await);
    logged(&log, "close=connect_failed").await;
    let again = timeout(Duration::ZERO, listener.accept()).await;
    assert!(again.is_err(), "it was dialled again");
}

#[tokio::test]
async fn a_server_that_was_not_heard_of_for_long_is_told_nothing_before_it_answers() {
    let (client, server) = two_that_keep_wires();
    let (listener, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, client);
    let mut wire = wire_of_test(&proxy, &log, &server, &listener).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let app = connect_saying(&proxy, b"patient").await;
    assert!(wire.is_opened().await.expect("an open wire"));
    drop(wire);
    // Nothing was said, so it can be said to another.
    let (stream, _) = server
        .accept(accept(&listener).await)
        .await
        .expect("a handshake");
    let mut wire = wire::testing::server(stream, address);
    expect_bytes(&mut wire, b"patient").await;
    drop(app);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_dialled() {
    let (client, server) = two_that_keep_wires();
    let (listener, address) = listen().await;
    let kernel = FakeKernel::steered_to(address).meshed();
    let (proxy, log) = proxy(kernel, Mode::Permissive, client);
    // It holds the wire, and says nothing.
    let _silent = wire_of_test(&proxy, &log, &server, &listener).await;
    let _app = connect(&proxy).await;
    let answered = server.accept(accept(&listener).await).await;
    answered.expect("a handshake");
}
