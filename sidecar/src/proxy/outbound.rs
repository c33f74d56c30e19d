//! From the app to the network.

use std::{
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ClientAddr, Close, Kernel, OrigDst, Proxy,
    accept::Accepted,
    ahead::Ahead,
    carry::{Said, carry},
    dial,
    establishing::Permit,
    first::First,
    stream::Stream,
    tcp::Tcp,
    wire,
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
    let opened = match again(proxy, &mut connection, &downstream, destination).await {
        Again::Taken(opened) => Ok(opened),
        Again::Lost(close) => Err(close),
        Again::NotTaken(first) => {
            // Apart, so that connections do not hold the room for a handshake as long as they last.
            let opened = Box::pin(open(proxy, &mut connection, destination)).await;
            opened.map(|opened| Opened {
                said: first.map_or(Said::Nothing, Said::NotHeard),
                ..opened
            })
        }
    };
    drop(permit);
    match opened {
        Ok(Opened {
            mut upstream,
            said,
            misnamed,
        }) => {
            let peer = upstream.peer();
            let mut standing = proxy
                .standing(Direction::Outbound, client, destination, peer)
                .misnamed(misnamed);
            let mut downstream = Stream::Plain(downstream);
            let carried = carry(
                &mut connection,
                &mut downstream,
                &mut upstream,
                said,
                &mut standing,
            );
            if carried.await == Close::Eof
                && let Stream::Wire(wire) = upstream
            {
                proxy.spares.put(destination, wire);
            }
        }
        Err(close) => connection.failed(close),
    }
}

/// A destination that has answered.
struct Opened {
    upstream: Stream,
    /// What the app has said by now.
    said: Said,
    /// That the cluster names others than who has, in words.
    misnamed: Option<String>,
}

/// What has come of a wire that was there already.
enum Again {
    /// It carries the connection.
    Taken(Opened),
    /// There was none, or it does not carry it: nothing has happened. The destination is to be dialled, and
    /// to be told what the app has said.
    NotTaken(Option<First>),
    /// It broke, and nobody knows whether the server has heard what the app has said.
    Lost(Close),
}

/// Has a wire carry the connection that is there already.
async fn again<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    downstream: &Tcp,
    destination: OrigDst,
) -> Again {
    /// A server that takes longer is more likely to have vanished. A dial finds out.
    const PATIENCE: Duration = Duration::from_secs(1);
    let identity = proxy.identity.borrow().clone();
    let Some(spare) = proxy.spares.take(destination, identity.as_ref()) else {
        return Again::NotTaken(None);
    };
    let is_fresh = spare.is_fresh();
    let mut wire = spare.wire;
    let policy = Arc::clone(&proxy.policy.borrow());
    let (own, peer) = (wire.identity().own(), wire.peer.id());
    let unexpected = policy.unexpected(destination, Some(peer));
    let misnamed = || policy.misnamed(destination, own, peer, &proxy.directory);
    if unexpected.or_else(misnamed).is_some() {
        wire::close(wire);
        return Again::NotTaken(None);
    }
    // Only to a server that was there a moment ago is something said before it has answered: nothing
    // can take that back if it has gone.
    let first = is_fresh
        .then(|| First::read(downstream, wire::FIRST))
        .flatten();
    let words = first.as_ref().map_or(&[][..], First::bytes);
    let started = Instant::now();
    let patience = PATIENCE.min(proxy.limits.connect);
    match tokio::time::timeout(patience, wire.stream.open(words)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Again::NotTaken(first),
        _ if first.is_none() => return Again::NotTaken(None),
        failed => {
            let error = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => format!("it did not answer in {patience:?}"),
            };
            connection.explain(format!(
                "lost {destination} over which an earlier connection went, with what the app had said: {error}"
            ));
            return Again::Lost(Close::ConnectFailed);
        }
    }
    connection.connect_took(started.elapsed());
    proxy.follow_wire(connection, &mut wire);
    if let Some(source) = wire.source() {
        connection.seen_from(ClientAddr(source));
    }
    connection.continues(wire.identity().own(), wire.peer.id());
    Again::Taken(Opened {
        upstream: Stream::Wire(wire),
        said: first.map_or(Said::Nothing, Said::AndHeard),
        misnamed: None,
    })
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
            connection.explain(format!(
                "cannot connect to {destination}: {}",
                dial::explanation(&error)
            ));
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
            said: Said::Nothing,
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
                upstream: Stream::to_server(upstream.into(), peer, identity),
                said: Said::Nothing,
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
