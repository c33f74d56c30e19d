//! From the app to the network.

use std::{os::fd::AsFd, time::Instant};

use super::{
    ClientAddr, Close, Kernel, OrigDst, Proxy,
    accept::Accepted,
    copy::copy,
    dial,
    inbound::close_of_handshake,
    stream::{Stream, reset},
};
use crate::{
    policy::{Direction, Mode},
    telemetry::{Connection, TlsUse},
};

/// Serves one connection that the app opened.
pub(super) async fn serve<K: Kernel>(proxy: &Proxy<K>, accepted: Accepted) {
    let Accepted {
        stream: downstream,
        client,
    } = accepted;
    let destination = match proxy.kernel.original_destination(downstream.as_fd()) {
        Ok(Some(destination)) => destination,
        Ok(None) => {
            reset(&downstream);
            tracing::warn!(%client, "refused a connection to the outbound listener that was not steered there");
            proxy
                .telemetry
                .not_accepted(Direction::Outbound, Close::NotSteered);
            return;
        }
        Err(error) => {
            reset(&downstream);
            tracing::error!(%client, "cannot read the original destination from the kernel: {error}");
            proxy
                .telemetry
                .not_accepted(Direction::Outbound, Close::KernelFailed);
            return;
        }
    };
    let mut connection = proxy
        .telemetry
        .begin(Direction::Outbound, client, destination);
    match open(proxy, &mut connection, destination).await {
        Ok(mut upstream) => {
            connection.established();
            let mut downstream = Stream::Plain(downstream);
            let ended = copy(&mut downstream, &mut upstream, &connection).await;
            finish(connection, ended, downstream, upstream);
        }
        Err(close) => {
            reset(&downstream);
            connection.failed(close);
        }
    }
}

/// Dials the destination and agrees with it on how to talk.
async fn open<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    destination: OrigDst,
) -> Result<Stream, Close> {
    let mode = proxy
        .outbound
        .mode(destination.0.port(), destination.0.ip());
    let started = Instant::now();
    let upstream = dial::upstream(&*proxy.kernel, destination, proxy.connect_timeout)
        .await
        .map_err(|error| {
            connection.explain(format!("cannot connect to {destination}: {error}"));
            Close::of_dial(&error)
        })?;
    connection.connect_took(started.elapsed());
    if let Ok(source) = upstream.local_addr() {
        connection.seen_from(ClientAddr(source));
    }

    let meshed = proxy
        .kernel
        .peer_is_meshed(upstream.as_fd())
        .map_err(|error| {
            reset(&upstream);
            connection.explain(format!(
                "cannot read from the kernel whether {destination} is meshed: {error}"
            ));
            Close::KernelFailed
        })?;
    // The option can be lost on the way. Under `strict` that costs nothing: TLS or nothing.
    if !meshed && mode != Mode::Strict {
        connection.tls(TlsUse::NoPeerOption);
        return Ok(Stream::Plain(upstream));
    }

    let started = Instant::now();
    let handshake =
        tokio::time::timeout(proxy.handshake_timeout, proxy.tls.connect(upstream)).await;
    match handshake {
        Ok(Ok((upstream, peer))) => {
            connection.handshake_took(started.elapsed());
            connection.tls(TlsUse::Mutual(peer));
            Ok(Stream::Client(Box::new(upstream)))
        }
        Ok(Err(error)) => {
            connection.tls(TlsUse::Failed);
            connection.explain(format!("TLS with {destination} failed: {error}"));
            Err(if meshed {
                close_of_handshake(&error)
            } else {
                Close::PlaintextRefused
            })
        }
        Err(_) => {
            connection.tls(TlsUse::Failed);
            connection.explain(format!(
                "{destination} did not finish the TLS handshake within {:?}",
                proxy.handshake_timeout
            ));
            Err(if meshed {
                Close::HandshakeTimeout
            } else {
                Close::PlaintextRefused
            })
        }
    }
}

/// Ends both legs as the carrying ended, and writes the record.
pub(super) fn finish(
    mut connection: Connection,
    ended: super::copy::Ended,
    client: Stream,
    server: Stream,
) {
    if ended.close != Close::Eof {
        client.reset();
        server.reset();
    }
    if let Some(error) = ended.error {
        connection.explain(error.to_string());
    }
    connection.closed(ended.close);
}
