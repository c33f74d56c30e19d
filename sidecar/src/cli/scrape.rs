use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::report::Scrape;

/// How long an admin endpoint may take to answer.
const CALL: Duration = Duration::from_secs(10);

/// The most that is read of an answer, in bytes.
const LONGEST: usize = 64 << 20;

/// Asks an admin endpoint for its metrics.
pub async fn scrape(admin: SocketAddr) -> anyhow::Result<Scrape> {
    let text = timeout(CALL, get(admin))
        .await
        .with_context(|| format!("the admin endpoint {admin} has not answered in {CALL:?}"))?
        .with_context(|| {
            format!("cannot scrape the admin endpoint {admin}: does a sidecar run there?")
        })?;
    Scrape::parse(&text).with_context(|| format!("what {admin} answers is no scrape"))
}

async fn get(admin: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header(header::HOST, admin.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status.is_success(), "it answers {status}");
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    connection.abort();
    let body = body.map_err(anyhow::Error::from_boxed)?;
    String::from_utf8(body.to_bytes().to_vec()).context("it does not answer in text")
}
