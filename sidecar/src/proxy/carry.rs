use std::{io, time::Duration};

use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    Close,
    copy::{Ended, Meter as _, copy},
    first::First,
    standing::Standing,
    stream::Stream,
};
use crate::telemetry::Connection;

/// What the client has said before its connection was established.
pub(super) enum Said {
    Nothing,
    /// The server has it.
    AndHeard(First),
    /// It is still to be carried.
    NotHeard(First),
}

/// Carries an established connection until it ends or is no longer allowed, ends both legs as it
/// ended, and writes the record. Says how it ended.
pub(super) async fn carry(
    connection: &mut Connection,
    client: &mut Stream,
    server: &mut Stream,
    said: Said,
    standing: &mut Standing,
) -> Close {
    connection.established();
    let first = match said {
        Said::Nothing => None,
        Said::AndHeard(first) => {
            connection.sent(first.bytes());
            None
        }
        Said::NotHeard(first) => Some(first),
    };
    let [client_was_reset, server_was_reset] = [&*client, &*server].map(|leg| {
        let tcp = leg.tcp().clone();
        move || tcp.clone().was_reset()
    });
    let copy = copy(
        client,
        server,
        first,
        client_was_reset,
        server_was_reset,
        connection,
    );
    let mut ended = tokio::select! {
        // First, or a connection that always has bytes to carry would never be told.
        biased;
        lost = standing.lost() => {
            if let Some(decision) = lost.decision {
                connection.decided(&decision);
            }
            connection.cut(lost.close, &lost.explanation);
            client.tcp().failed();
            server.tcp().failed();
            return lost.close;
        }
        ended = copy => ended,
    };
    if ended.close != Close::Eof {
        if let Some(error) = alert(server, connection, &ended).await {
            ended.error = Some(error);
        }
        client.tcp().failed();
        server.tcp().failed();
    }
    connection.closed(ended.close, ended.error);
    ended.close
}

/// The alert by which a server refuses our certificate, if writing has failed before it was read.
///
/// A client's handshake is done before the server has judged its certificate, so the alert comes
/// in place of the first bytes, and a reset behind it may be met first.
async fn alert(server: &mut Stream, connection: &Connection, ended: &Ended) -> Option<io::Error> {
    /// It has come already, if there is one.
    const LIMIT: Duration = Duration::from_millis(100);
    if matches!(server, Stream::Plain(_)) {
        return None;
    }
    if ended.close != Close::ServerReset || connection.has_received() {
        return None;
    }
    timeout(LIMIT, server.read_u8()).await.ok()?.err()
}
