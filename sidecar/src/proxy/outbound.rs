//! From the app to the network.

use std::{os::fd::AsFd, sync::Arc, time::Instant};

use super::{
    ClientAddr, Close, Kernel, OrigDst, Proxy, accept::Accepted, ahead::Ahead, carry::carry, dial,
    establishing::Permit, stream::Stream,
};
use crate::{
    policy::{Direction, Mode},
    telemetry::{Connection, Leg, TlsUse},
};

/// Serves one connection that the app opened.
pub(super) async fn serve<K: Kernel>(proxy: &Proxy<K>, accepted: Accepted, permit: Permit) {
    let Accepted {
        stream: downstream,
        client,
    } = accepted;
    let destination = match proxy.kernel.original_destination(downstream.as_fd()) {
        Ok(Some(destination)) => destination,
        Ok(None) => {
            tracing::warn!(%client, reason = %Close::NotSteered, "refused a connection to the outbound listener that was not steered there");
            proxy
                .telemetry
                .not_accepted(Direction::Outbound, Close::NotSteered);
            return;
        }
        Err(error) => {
            tracing::error!(%client, reason = %Close::KernelFailed, "cannot read the original destination from the kernel: {error}");
            proxy
                .telemetry
                .not_accepted(Direction::Outbound, Close::KernelFailed);
            return;
        }
    };
    let mut connection = proxy
        .telemetry
        .begin(Direction::Outbound, client, destination);
    proxy.follow(&mut connection, Leg::App, &downstream);
    let opened = open(proxy, &mut connection, destination).await;
    drop(permit);
    match opened {
        Ok(Opened { upstream, misnamed }) => {
            let peer = upstream.peer();
            let standing = proxy
                .standing(Direction::Outbound, client, destination, peer)
                .misnamed(misnamed);
            carry(connection, Stream::Plain(downstream), upstream, standing).await;
        }
        Err(close) => connection.failed(close),
    }
}

/// A destination that has answered.
struct Opened {
    upstream: Stream,
    /// That the cluster names others than who has, in words.
    misnamed: Option<String>,
}

/// Dials the destination and agrees with it on how to talk.
async fn open<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    destination: OrigDst,
) -> Result<Opened, Close> {
    let started = Instant::now();
    let upstream = dial::upstream(&*proxy.kernel, destination, proxy.limits.connect)
        .await
        .map_err(|error| {
            connection.explain(format!("cannot connect to {destination}: {error}"));
            Close::of_dial(&error)
        })?;
    connection.connect_took(started.elapsed());
    proxy.follow(connection, Leg::Network, &upstream);
    if let Ok(source) = upstream.local_addr() {
        connection.seen_from(ClientAddr(source));
    }

    let meshed = proxy
        .kernel
        .peer_is_meshed(upstream.as_fd())
        .map_err(|error| {
            connection.explain(format!(
                "cannot read from the kernel whether {destination} is meshed: {error}"
            ));
            Close::KernelFailed
        })?;
    // The option can be lost on the way. Under `strict` that costs nothing: TLS or nothing.
    let policy = Arc::clone(&proxy.policy.borrow());
    let (port, remote) = (destination.0.port(), destination.0.ip());
    let expected = policy.expectations.of(port, remote);
    if !meshed && expected.is_none() && policy.outbound.mode(port, remote) != Mode::Strict {
        connection.tls(TlsUse::NoPeerOption);
        return Ok(Opened {
            upstream: Stream::Plain(upstream),
            misnamed: None,
        });
    }

    let identity = proxy.identity(connection).await?;
    connection.uses(identity.own());
    let started = Instant::now();
    let handshake = tokio::time::timeout(
        proxy.limits.handshake,
        identity.connect(remote, Ahead::new(upstream)),
    );
    let (close, explanation) = match handshake.await {
        Ok(Ok((upstream, peer))) => {
            connection.handshake_took(started.elapsed());
            let unexpected = policy.unexpected(destination, Some(peer.id()));
            connection.tls(TlsUse::Mutual(peer.id().clone()));
            if let Some(explanation) = unexpected {
                connection.explain(explanation);
                return Err(Close::PeerUnexpected);
            }
            let misnamed =
                policy.misnamed(destination, identity.own(), peer.id(), &proxy.directory);
            if let Some(explanation) = &misnamed {
                let refused = policy.refuses_misnamed(destination);
                connection.misnamed(explanation, refused);
                if refused {
                    return Err(Close::PeerMisnamed);
                }
            }
            return Ok(Opened {
                upstream: Stream::Client(Box::new(upstream), peer),
                misnamed,
            });
        }
        Ok(Err(error)) => (
            Close::of_handshake(&error),
            format!("TLS with {destination} failed: {error}"),
        ),
        Err(_) => (
            Close::HandshakeTimeout,
            format!(
                "{destination} did not finish the TLS handshake in {:?}",
                proxy.limits.handshake
            ),
        ),
    };
    connection.tls(TlsUse::Failed);
    // Whoever shows a certificate speaks mutual TLS, and is refused for what it shows.
    if meshed || close.is_denial() {
        connection.explain(explanation);
        return Err(close);
    }
    let demand = expected.map_or_else(
        || "the mode is strict".to_owned(),
        |expected| format!("{expected} is expected"),
    );
    connection.explain(format!("{explanation}; it shows no sidecar, and {demand}"));
    Err(Close::PlaintextRefused)
}
