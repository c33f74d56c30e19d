use std::{io, time::Duration};

use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    Close,
    copy::{Ended, copy},
    standing::Standing,
    stream::Stream,
};
use crate::telemetry::Connection;

/// Carries an established connection until it ends or is no longer allowed, ends both legs as it
/// ended, and writes the record.
pub(super) async fn carry(
    mut connection: Connection,
    mut client: Stream,
    mut server: Stream,
    standing: Standing,
) {
    connection.established();
    let client_was_reset = client.tcp().clone().was_reset();
    let server_was_reset = server.tcp().clone().was_reset();
    let copy = copy(
        &mut client,
        &mut server,
        client_was_reset,
        server_was_reset,
        &mut connection,
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
            return;
        }
        ended = copy => ended,
    };
    if ended.close != Close::Eof {
        if let Some(error) = alert(&mut server, &connection, &ended).await {
            ended.error = Some(error);
        }
        client.tcp().failed();
        server.tcp().failed();
    }
    connection.closed(ended.close, ended.error);
}

/// The alert by which a server refuses our certificate, if writing has failed before it was read.
///
/// A client's handshake is done before the server has judged its certificate, so the alert comes
/// in place of the first bytes, and a reset behind it may be met first.
async fn alert(server: &mut Stream, connection: &Connection, ended: &Ended) -> Option<io::Error> {
    /// It has come already, if there is one.
    const LIMIT: Duration = Duration::from_millis(100);
    let Stream::Client(server, _) = server else {
        return None;
    };
    if ended.close != Close::ServerReset || connection.has_received() {
        return None;
    }
    timeout(LIMIT, server.read_u8()).await.ok()?.err()
}
