//! From the network to the app.

mod again;

use std::{io, os::fd::AsFd, pin::pin, time::Instant};

use super::{
    ClientAddr, Close, Drain, Kernel, OrigDst, Proxy,
    accept::{Accepted, now_or_never},
    addr::canonical,
    admission::denial,
    ahead::Ahead,
    carry::{Said, carry},
    dial,
    establishing::Permit,
    stream::Stream,
    tcp::Tcp,
};
use crate::{
    policy::{
        Direction, Mode,
        authorization::{Decision, Verdict},
    },
    telemetry::{Connection, Leg, TlsUse},
    tls::begins_with_our_hello,
};

/// Serves one connection that came from the network.
pub(super) async fn serve<K: Kernel>(
    proxy: &Proxy<K>,
    accepted: Accepted,
    permit: Permit,
    drain: &Drain,
) {
    let destination = match accepted.stream.local_addr() {
        // Loopback is never steered here: somebody has found the listener's own port.
        Ok(address) if address.ip().to_canonical().is_loopback() => {
            tracing::warn!(client = %accepted.client, reason = %Close::NotSteered, "refused a connection to the inbound listener that was not steered there");
            proxy
                .telemetry
                .not_accepted(Direction::Inbound, Close::NotSteered);
            return;
        }
        Ok(address) => OrigDst(canonical(address)),
        // The client is gone already.
        Err(_) => return,
    };
    serve_to(proxy, accepted, permit, destination, drain).await;
}

/// Serves one connection to the app on `destination`, and those that follow it.
pub(super) async fn serve_to<K: Kernel>(
    proxy: &Proxy<K>,
    accepted: Accepted,
    permit: Permit,
    destination: OrigDst,
    drain: &Drain,
) {
    let Accepted {
        stream: downstream,
        client,
    } = accepted;
    downstream.ask_whether_alive();
    let mut connection = proxy
        .telemetry
        .begin(Direction::Inbound, client, destination);
    proxy.follow(&mut connection, Leg::Network, &downstream);
    let opened = open(
        proxy,
        &mut connection,
        permit,
        downstream,
        client,
        destination,
    );
    // Apart, so that connections do not hold the room for a handshake as long as they last.
    match Box::pin(opened).await {
        Ok((mut downstream, mut upstream)) => {
            let peer = downstream.peer();
            let mut standing = proxy.standing(Direction::Inbound, client, destination, peer);
            let close = carry(
                &mut connection,
                &mut downstream,
                &mut upstream,
                Said::Nothing,
                &mut standing,
            )
            .await;
            drop((connection, upstream));
            if close == Close::Eof
                && let Stream::Wire(wire) = downstream
            {
                Box::pin(again::serve(proxy, wire, client, destination, drain)).await;
            }
        }
        Err(close) => connection.failed(close),
    }
}

/// Agrees with the client on how to talk, and dials the app.
async fn open<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    permit: Permit,
    downstream: Tcp,
    client: ClientAddr,
    destination: OrigDst,
) -> Result<(Stream, Stream), Close> {
    let meshed = proxy
        .kernel
        .peer_is_meshed(downstream.as_fd())
        .map_err(|error| {
            connection.explain(format!(
                "cannot read from the kernel whether {client} is meshed: {error}"
            ));
            Close::KernelFailed
        })?;
    let mode = proxy
        .policy
        .borrow()
        .inbound
        .mode(destination.0.port(), client.0.ip());

    // The app is not bothered before the client has proved who it is, where that matters.
    let denied_in_plaintext = proxy
        .policy
        .borrow()
        .decide(client, destination, None)
        .filter(|decision| decision.verdict == Verdict::Deny);
    if meshed || mode == Mode::Strict || denied_in_plaintext.is_some() {
        if !meshed && !begins_tls(proxy, &downstream).await {
            return Err(match denied_in_plaintext {
                Some(decision) if mode != Mode::Strict => {
                    connection.tls(TlsUse::NoPeerOption);
                    denied(connection, client, destination, &decision)
                }
                _ => plaintext_refused(connection, client),
            });
        }
        let downstream = handshake(proxy, connection, downstream, client, destination).await?;
        authorize(proxy, connection, client, destination)?;
        let upstream = dial_app(proxy, connection, client, destination).await?;
        return Ok((downstream, Stream::Plain(upstream)));
    }

    // A plain client, or one whose option was lost on the way. Whoever speaks first tells: a
    // server that greets does not wait for us to find out.
    let upstream = dial_app(proxy, connection, client, destination).await?;
    // Both may be silent for as long as they like: the app knows of the client.
    drop(permit);
    let mut standing = proxy.standing(Direction::Inbound, client, destination, None);
    let begins = tokio::select! {
        biased;
        lost = standing.lost() => {
            if let Some(decision) = lost.decision {
                connection.decided(&decision);
            }
            connection.explain(lost.explanation);
            return Err(lost.close);
        }
        _ = upstream.readable() => Begins::Plain,
        begins = first_words(proxy, &downstream) => begins,
    };
    let downstream = match begins {
        Begins::Plain => {
            connection.tls(TlsUse::NoPeerOption);
            Stream::Plain(downstream)
        }
        Begins::Tls(Some(_permit)) => {
            handshake(proxy, connection, downstream, client, destination).await?
        }
        Begins::Tls(None) => {
            connection.tls(TlsUse::Failed);
            connection.explain(format!(
                "{client} began a TLS handshake when too many were in the making"
            ));
            return Err(Close::Overloaded);
        }
        Begins::NothingWhole => {
            connection.tls(TlsUse::Failed);
            connection.explain(format!(
                "{client} began a TLS handshake and did not go on with it in {:?}",
                proxy.limits.handshake
            ));
            return Err(Close::HandshakeTimeout);
        }
    };
    authorize(proxy, connection, client, destination)?;
    Ok((downstream, Stream::Plain(upstream)))
}

/// How a client without option begins.
enum Begins {
    /// With something else than TLS of ours.
    Plain,
    /// With a `ClientHello` of ours; with room for the handshake, if there was any.
    Tls(Option<Permit>),
    /// With a part of a `ClientHello`, and never the rest.
    NothingWhole,
}

/// Waits for the first words of a client without option, however long it is silent.
///
/// Once they are part of a `ClientHello`, a handshake is in the making: it takes room like any other,
/// and the rest is not waited for longer than for a handshake.
async fn first_words<K: Kernel>(proxy: &Proxy<K>, downstream: &Tcp) -> Begins {
    if downstream.peek(&mut [0]).await.is_err() {
        return Begins::Plain;
    }
    let admit = || proxy.establishing.admit(Direction::Inbound);
    let mut begins = pin!(begins_with_our_hello(downstream));
    match now_or_never(begins.as_mut()) {
        Some(Ok(true)) => return Begins::Tls(admit()),
        Some(Ok(false) | Err(_)) => return Begins::Plain,
        None => {}
    }
    let Some(permit) = admit() else {
        return Begins::Tls(None);
    };
    match tokio::time::timeout(proxy.limits.handshake, begins).await {
        Ok(Ok(true)) => Begins::Tls(Some(permit)),
        Ok(Ok(false) | Err(_)) => Begins::Plain,
        Err(_) => Begins::NothingWhole,
    }
}

/// Waits for a client without option to begin the TLS handshake nevertheless.
async fn begins_tls<K: Kernel>(proxy: &Proxy<K>, downstream: &Tcp) -> bool {
    let begins = tokio::time::timeout(proxy.limits.handshake, begins_with_our_hello(downstream));
    matches!(begins.await, Ok(Ok(true)))
}

fn plaintext_refused(connection: &mut Connection, client: ClientAddr) -> Close {
    connection.tls(TlsUse::Failed);
    connection.explain(format!(
        "{client} does not speak mutual TLS, and the mode is strict"
    ));
    Close::PlaintextRefused
}

/// Asks the policy whether the client, who is known by now, may reach the app.
fn authorize<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    client: ClientAddr,
    destination: OrigDst,
) -> Result<(), Close> {
    let peer = connection.tls_use().peer();
    let decision = proxy.policy.borrow().decide(client, destination, peer);
    match decision {
        Some(decision) if decision.verdict == Verdict::Deny => {
            Err(denied(connection, client, destination, &decision))
        }
        Some(decision) => {
            connection.decided(&decision);
            Ok(())
        }
        None => Ok(()),
    }
}

fn denied(
    connection: &mut Connection,
    client: ClientAddr,
    destination: OrigDst,
    decision: &Decision,
) -> Close {
    connection.decided(decision);
    let peer = connection.tls_use().peer();
    connection.explain(denial(client, destination, peer, &decision.rule));
    Close::Denied
}

async fn handshake<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    downstream: Tcp,
    client: ClientAddr,
    destination: OrigDst,
) -> Result<Stream, Close> {
    let identity = proxy.identity(connection).await?;
    connection.uses(identity.own());
    let started = Instant::now();
    let handshake = tokio::time::timeout(
        proxy.limits.handshake,
        identity.accept(Ahead::new(downstream)),
    );
    let close = match handshake.await {
        Ok(Ok((downstream, peer))) => {
            connection.handshake_took(started.elapsed());
            connection.tls(TlsUse::Mutual(peer.id().clone()));
            let downstream = downstream.into();
            return Ok(Stream::to_client(downstream, peer, identity, destination.0));
        }
        Ok(Err(error)) => {
            connection.explain(format!("TLS with {client} failed: {error}"));
            Close::of_handshake(&error)
        }
        Err(_) => {
            connection.explain(format!(
                "{client} did not finish the TLS handshake in {:?}",
                proxy.limits.handshake
            ));
            Close::HandshakeTimeout
        }
    };
    connection.tls(TlsUse::Failed);
    Err(close)
}

async fn dial_app<K: Kernel>(
    proxy: &Proxy<K>,
    connection: &mut Connection,
    client: ClientAddr,
    destination: OrigDst,
) -> Result<Tcp, Close> {
    let started = Instant::now();
    let upstream = dial::app(&*proxy.kernel, destination, client, proxy.limits.connect).await;
    connection.connect_took(started.elapsed());
    if let Ok(upstream) = &upstream {
        proxy.follow(connection, Leg::App, upstream);
    }
    upstream.map_err(|error| {
        connection.explain(format!(
            "cannot connect to the app on {destination}: {}",
            dial::explanation(&error)
        ));
        if error.kind() == io::ErrorKind::ConnectionRefused {
            proxy.kernel.app_refused(destination);
        }
        Close::of_dial(&error)
    })
}
