use super::{
    Close,
    copy::{Ended, copy},
    stream::Stream,
};
use crate::telemetry::Connection;

/// Carries an established connection to its end, ends both legs as it ended, and writes the record.
pub(super) async fn carry(mut connection: Connection, mut client: Stream, mut server: Stream) {
    connection.established();
    let client_was_reset = client.tcp().clone().was_reset();
    let server_was_reset = server.tcp().clone().was_reset();
    let Ended { close, error } = copy(
        &mut client,
        &mut server,
        client_was_reset,
        server_was_reset,
        &connection,
    )
    .await;
    if close != Close::Eof {
        client.tcp().reset();
        server.tcp().reset();
    }
    connection.closed(close, error);
}
