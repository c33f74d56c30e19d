//! Where the daemon's own messages and the access log go.

use std::io::{self, Write};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{self, LogFormat},
    telemetry::{AccessLog, Format},
};

/// Lines that may wait for a slow reader before more are dropped.
const LINES: usize = 65_536;

/// Writes what still waits when it is dropped.
#[must_use = "lines that wait are written when it is dropped"]
pub struct Flush {
    #[expect(dead_code, reason = "it only has to live as long as the program")]
    guard: WorkerGuard,
}

/// Begins to write the daemon's messages to standard error.
///
/// `filter` was checked when the configuration was read.
pub fn init(filter: &str, format: LogFormat) -> Flush {
    let (output, flush) = non_blocking(io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_target(false)
        .with_writer(output);
    match format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            subscriber.with_ansi(colours).init();
        }
    }
    flush
}

/// Begins to write the access log to standard output, unless it is off.
pub fn access_log(wanted: config::AccessLog) -> (AccessLog, Option<Flush>) {
    let format = match wanted {
        config::AccessLog::Json => Format::Json,
        config::AccessLog::Off => return (AccessLog::off(), None),
        config::AccessLog::Text => Format::Text,
    };
    let (output, flush) = non_blocking(io::stdout());
    (AccessLog::new(format, output), Some(flush))
}

/// A writer that never blocks the caller: a thread of its own writes, and lines are dropped when
/// it cannot keep up.
fn non_blocking(output: impl Write + Send + 'static) -> (NonBlocking, Flush) {
    let (output, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .finish(output);
    (output, Flush { guard })
}
