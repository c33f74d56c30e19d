//! The connections that a wire brings after its first one.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::super::{
    ClientAddr, Close, Drain, Kernel, OrigDst, Proxy,
    carry::{Said, carry},
    dial,
    establishing::Permit,
    stream::Stream,
    tcp::Tcp,
    wire::Wire,
};
use crate::{
    policy::{
        Direction,
        authorization::{Decision, Verdict},
    },
    telemetry::Leg,
};

/// How long the client may keep a wire that has nothing to carry. It gives it up by itself much
/// earlier.
const PATIENCE: Duration = Duration::from_mins(2);

/// Serves one connection after another until the client, or we, have enough of it.
///
/// A connection that is not let in is told of by the end of the wire alone, in good order: nothing of it
/// has reached the app. The client dials anew, and the record of that has the reason.
pub(super) async fn serve<K: Kernel>(
    proxy: &Proxy<K>,
    mut wire: Box<Wire>,
    client: ClientAddr,
    destination: OrigDst,
    drain: &Drain,
) {
    loop {
        let is_opened = tokio::select! {
            biased;
            () = drain.is_leaving() => break,
            is_opened = timeout(PATIENCE, wire.stream.is_opened()) => is_opened,
        };
        match is_opened {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => break,
            Ok(Err(_)) => return,
        }
        let Some(let_in) = let_in(proxy, &wire, client, destination).await else {
            break;
        };
        if wire.stream.accept().await.is_err() {
            return;
        }
        let LetIn {
            permit,
            decision,
            upstream,
            took,
        } = let_in;
        let mut connection = proxy
            .telemetry
            .begin(Direction::Inbound, client, destination);
        proxy.follow_wire(&mut connection, &mut wire);
        proxy.follow(&mut connection, Leg::App, &upstream);
        connection.continues(wire.identity().own(), wire.peer.id());
        connection.connect_took(took);
        if let Some(decision) = decision {
            connection.decided(&decision);
        }
        drop(permit);
        let mut standing =
            proxy.standing(Direction::Inbound, client, destination, Some(&wire.peer));
        let mut downstream = Stream::Wire(wire);
        let mut upstream = Stream::Plain(upstream);
        let close = carry(
            &mut connection,
            &mut downstream,
            &mut upstream,
            Said::Nothing,
            &mut standing,
        )
        .await;
        match downstream {
            Stream::Wire(again) if close == Close::Eof => wire = again,
            _ => return,
        }
    }
    super::super::wire::close(wire);
}

/// A connection that the app has taken.
struct LetIn {
    /// It is still in the making.
    permit: Permit,
    /// Why it is let in, where rules are asked.
    decision: Option<Decision>,
    upstream: Tcp,
    /// How long the dial took.
    took: Duration,
}

/// Decides about a connection as if it had been dialled, and dials the app; `None` if anything speaks against it.
async fn let_in<K: Kernel>(
    proxy: &Proxy<K>,
    wire: &Wire,
    client: ClientAddr,
    destination: OrigDst,
) -> Option<LetIn> {
    let permit = proxy.establishing.admit(Direction::Inbound)?;
    if !wire.holds_under(proxy.identity.borrow().as_ref()) {
        return None;
    }
    let policy = proxy.policy.borrow().clone();
    let decision = policy.decide(client, destination, Some(wire.peer.id()));
    if decision
        .as_ref()
        .is_some_and(|decision| decision.verdict == Verdict::Deny)
    {
        return None;
    }
    let started = Instant::now();
    let upstream = dial::app(&*proxy.kernel, destination, client, proxy.limits.connect);
    let upstream = upstream.await.ok()?;
    Some(LetIn {
        permit,
        decision,
        upstream,
        took: started.elapsed(),
    })
}
