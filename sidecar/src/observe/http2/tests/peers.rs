//! Conversations of a client and a server by another hand, the crate `h2`, and what an observer
//! between the two makes of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
};

use super::wire::{Conversation, From, exchanges};
use crate::observe::{Exchange, GrpcStatus, Observation, Outcome, Protocol};

/// What becomes of a request, by the number in its path.
#[derive(Clone, Debug)]
struct Plan {
    is_grpc: bool,
    request_bytes: usize,
    /// Fields of request and response that nobody has asked for.
    fields: Vec<(String, String)>,
    has_trailers: bool,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    /// A response.
    Whole {
        status: u16,
        bytes: usize,
        grpc_status: Option<u8>,
        has_interim: bool,
        has_push: bool,
    },
    /// A response before the request is whole, which then never is.
    Early { status: u16 },
    /// The server gives up.
    ResetByServer,
    /// The client gives up, once it has the response's head.
    ResetByClient { status: u16 },
}

/// When requests are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// All together.
    AtOnce,
    /// Each when the one before is over. Only then does the server push: it may mix up the order of
    /// promises that it makes at the same time.
    InTurn,
}

/// Numbers that look random, and are the same in every run.
struct Dice(u64);

impl Dice {
    /// Of many bits, which are all over it.
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn size(&mut self, bound: u64) -> usize {
        usize::try_from(self.below(bound)).expect("small")
    }

    fn status(&mut self) -> u16 {
        [200, 204, 301, 404, 500, 503][self.size(6)]
    }
}

impl Plan {
    fn random(dice: &mut Dice, order: Order) -> Self {
        let is_grpc = dice.one_in(3);
        let fields = (0..dice.below(6)).map(|_| {
            let name = format!("x-field-{}", dice.below(40));
            let value = (0..dice.below(120)).fold(String::new(), |mut value, _| {
                let letter = u8::try_from(u64::from(b' ') + dice.below(95)).expect("printable");
                value.write_char(letter.into()).expect("there is room");
                value
            });
            (name, value.trim().to_owned())
        });
        Self {
            is_grpc,
            fields: fields.collect(),
            request_bytes: if dice.one_in(2) { 0 } else { dice.size(10_000) },
            has_trailers: dice.one_in(4),
            answer: match dice.below(10) {
                0 => Answer::Early {
                    status: dice.status(),
                },
                1 => Answer::ResetByServer,
                2 => Answer::ResetByClient {
                    status: dice.status(),
                },
                _ => Answer::Whole {
                    status: dice.status(),
                    bytes: if dice.one_in(3) { 0 } else { dice.size(20_000) },
                    grpc_status: (is_grpc && !dice.one_in(5))
                        .then(|| u8::try_from(dice.below(17)).expect("small")),
                    has_interim: dice.one_in(5),
                    has_push: order == Order::InTurn && dice.one_in(2),
                },
            },
        }
    }

    fn headers(&self) -> HeaderMap {
        let fields = self.fields.iter().map(|(name, value)| {
            let name = HeaderName::try_from(name).expect("a name");
            (name, HeaderValue::try_from(value).expect("printable"))
        });
        let mut headers: HeaderMap = fields.collect();
        if self.is_grpc {
            let grpc = HeaderValue::from_static("application/grpc");
            headers.insert("content-type", grpc);
        }
        headers
    }

    /// What is to be seen of it.
    fn assert_seen(&self, exchange: &Exchange) {
        let (outcome, status, grpc_status) = match self.answer {
            Answer::Whole {
                status,
                grpc_status,
                ..
            } => (Outcome::Complete, Some(status), grpc_status),
            Answer::Early { status } => (Outcome::Complete, Some(status), None),
            Answer::ResetByServer => (Outcome::ResetByServer, None, None),
            Answer::ResetByClient { status } => (Outcome::ResetByClient, Some(status), None),
        };
        assert_eq!(exchange.outcome, outcome, "{self:?} {exchange:?}");
        assert_eq!(exchange.status, status, "{self:?} {exchange:?}");
        let seen = exchange.grpc_status.map(GrpcStatus::number);
        assert_eq!(seen, grpc_status, "{self:?} {exchange:?}");
        let protocol = if self.is_grpc {
            Protocol::Grpc
        } else {
            Protocol::Http2
        };
        assert_eq!(exchange.protocol, protocol);
        assert_eq!(exchange.method, crate::observe::Method::Post);
        let authority = exchange.authority.as_ref().expect("there is one");
        assert_eq!(authority.as_str(), "shop.example:8080");
        if let Answer::Whole { bytes, .. } = self.answer {
            assert_eq!(exchange.request_bytes, self.request_bytes as u64);
            assert_eq!(exchange.response_bytes, bytes as u64);
            assert!(exchange.first_byte.is_some());
        }
    }
}

/// Records all that passes between client and server.
#[derive(Clone, Default)]
struct Tap(Arc<Mutex<Conversation>>);

impl Tap {
    async fn carry(
        self,
        from: From,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = &buffer[..length];
            self.heard().0.push((from, bytes.to_vec()));
            if writer.write_all(bytes).await.is_err() {
                break;
            }
        }
        // The other may have gone first.
        let _ = writer.shutdown().await;
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Conversation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a client and a server do what is planned, `table` bytes of compression each way.
async fn converse(plans: Arc<Vec<Plan>>, order: Order, table: u32) -> Conversation {
    let tap = Tap::default();
    let (client_end, client_far) = duplex(64 * 1024);
    let (server_far, server_end) = duplex(64 * 1024);
    let (client_read, client_write) = tokio::io::split(client_far);
    let (server_read, server_write) = tokio::io::split(server_far);
    tokio::join!(
        tap.clone().carry(From::Client, client_read, server_write),
        tap.clone().carry(From::Server, server_read, client_write),
        serve(server_end, Arc::clone(&plans), table),
        ask(client_end, plans, order, table),
    );
    tap.heard().clone()
}

async fn ask(end: DuplexStream, plans: Arc<Vec<Plan>>, order: Order, table: u32) {
    let (sender, connection) = client::Builder::new()
        .header_table_size(table)
        .handshake::<_, Bytes>(end)
        .await
        .expect("the server answers");
    let done = async {
        let mut tasks = JoinSet::new();
        for (number, plan) in plans.iter().cloned().enumerate() {
            tasks.spawn(ask_one(sender.clone(), number, plan));
            if order == Order::InTurn {
                finish(&mut tasks).await;
            }
        }
        drop(sender);
        finish(&mut tasks).await;
    };
    let (connected, ()) = tokio::join!(connection, done);
    connected.expect("the connection ends well");
}

async fn ask_one(sender: client::SendRequest<Bytes>, number: usize, plan: Plan) {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://shop.example:8080/{number}?secret"))
        .body(())
        .expect("a request");
    request.headers_mut().extend(plan.headers());
    let is_held = matches!(plan.answer, Answer::Early { .. });
    let is_short = plan.request_bytes == 0 && !plan.has_trailers && !is_held;
    let mut sender = sender.ready().await.expect("there is room");
    let (response, mut body) = sender
        .send_request(request, is_short)
        .expect("it can be sent");
    if !is_short {
        let content = vec![b'q'; plan.request_bytes].into();
        body.send_data(content, !plan.has_trailers && !is_held)
            .expect("it can be sent");
        if plan.has_trailers && !is_held {
            body.send_trailers(plan.headers()).expect("it can be sent");
        }
    }
    let response = response.await;
    match plan.answer {
        Answer::Whole {
            status,
            bytes,
            grpc_status,
            ..
        } => {
            let mut response = response.expect("there is one");
            assert_eq!(response.status(), status);
            assert_eq!(read(response.body_mut()).await, bytes);
            let trailers = response.body_mut().trailers().await.expect("all is well");
            let told = trailers
                .as_ref()
                .and_then(|trailers| trailers.get("grpc-status"))
                .map(|value| value.to_str().expect("text").parse().expect("a number"));
            assert_eq!(told, grpc_status);
        }
        Answer::Early { status } => assert_eq!(response.expect("there is one").status(), status),
        Answer::ResetByServer => {
            let error = response.expect_err("there is none");
            assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        }
        Answer::ResetByClient { status } => {
            assert_eq!(response.expect("there is one").status(), status);
            body.send_reset(Reason::CANCEL);
        }
    }
}

async fn serve(end: DuplexStream, plans: Arc<Vec<Plan>>, table: u32) {
    let mut connection = server::Builder::new()
        .header_table_size(table)
        .handshake::<_, Bytes>(end)
        .await
        .expect("the client begins");
    let mut tasks = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.expect("it is a request");
        let number: usize = request.uri().path()[1..].parse().expect("a number");
        tasks.spawn(serve_one(request, respond, plans[number].clone()));
    }
    finish(&mut tasks).await;
}

async fn finish(tasks: &mut JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        task.expect("it goes as planned");
    }
}

async fn serve_one(
    mut request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    plan: Plan,
) {
    let head = |status: u16| {
        let mut response = Response::builder().status(status).body(()).expect("valid");
        response.headers_mut().extend(plan.headers());
        response
    };
    match plan.answer {
        Answer::Whole {
            status,
            bytes,
            grpc_status,
            has_interim,
            has_push,
        } => {
            assert_eq!(read(request.body_mut()).await, plan.request_bytes);
            if has_interim {
                respond
                    .send_informational(head(103))
                    .expect("there is room");
            }
            if has_push {
                let pushed = Request::get("http://shop.example:8080/pushed");
                let mut pushed = pushed.body(()).expect("a request");
                pushed.headers_mut().extend(plan.headers());
                // The client may have enough of it.
                if let Ok(mut promise) = respond.push_request(pushed) {
                    let _ = promise.send_response(head(200), true);
                }
            }
            let mut body = respond
                .send_response(head(status), false)
                .expect("the client waits");
            send(&mut body, bytes).await;
            let mut trailers = HeaderMap::new();
            if let Some(status) = grpc_status {
                trailers.insert("grpc-status", u16::from(status).into());
            }
            body.send_trailers(trailers).expect("the client waits");
        }
        Answer::Early { status } => {
            respond
                .send_response(head(status), true)
                .expect("the client waits");
        }
        Answer::ResetByServer => respond.send_reset(Reason::REFUSED_STREAM),
        Answer::ResetByClient { status } => {
            let mut body = respond
                .send_response(head(status), false)
                .expect("the client waits");
            let reason = std::future::poll_fn(|context| body.poll_reset(context)).await;
            assert_eq!(reason.expect("it is reset"), Reason::CANCEL);
        }
    }
}

/// Reads content to its end.
async fn read(body: &mut RecvStream) -> usize {
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.expect("it is whole");
        length += chunk.len();
        body.flow_control()
            .release_capacity(chunk.len())
            .expect("it was taken");
    }
    length
}

async fn send(body: &mut SendStream<Bytes>, length: usize) {
    body.send_data(vec![b'a'; length].into(), false)
        .expect("the client waits");
    tokio::task::yield_now().await;
}

/// Tries it with so many requests at once, and tables of this size.
fn try_out(seed: u64, requests: usize, order: Order, table: u32) {
    let mut dice = Dice(Dice::SEED.wrapping_mul(seed));
    let plans: Vec<_> = (0..requests)
        .map(|_| Plan::random(&mut dice, order))
        .collect();
    let plans = Arc::new(plans);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let conversation = runtime.block_on(converse(Arc::clone(&plans), order, table));
    let now = Instant::now();
    let whole = conversation.watch_in(now, usize::MAX);
    for length in [1, 7, 1000] {
        let pieces = conversation.watch_in(now, length);
        assert!(
            pieces == whole,
            "in pieces of {length}, other things are seen"
        );
    }
    let lost = whole
        .last()
        .filter(|last| matches!(last, Observation::Lost(_)));
    assert_eq!(lost, None);
    let exchanges: BTreeMap<usize, _> = exchanges(whole)
        .into_iter()
        .map(|exchange| {
            let path = exchange.path.as_ref().expect("there is one").as_str();
            (path[1..].parse().expect("a number"), exchange)
        })
        .collect();
    assert_eq!(exchanges.len(), plans.len());
    for (number, exchange) in &exchanges {
        plans[*number].assert_seen(exchange);
    }
}

#[test]
fn an_observer_sees_what_client_and_server_did() {
    for (seed, table) in [
        (1, 4096),
        (2, 0),
        (3, 100),
        (4, 65_536),
        (5, 4096),
        (6, 600),
    ] {
        try_out(seed, 90, Order::AtOnce, table);
        try_out(seed, 30, Order::InTurn, table);
    }
}
