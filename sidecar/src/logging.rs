//! Where the daemon's own messages and the access log go.

use std::{
    io::{self, Stderr, Write},
    sync::{Arc, OnceLock},
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::EitherWriter},
};

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
pub fn init(filter: &str, format: LogFormat) -> Messages {
    let messages = Messages::default();
    let subscriber = tracing_subscriber::fmt()
        // It tells of every directory that goes while it is watched, as when a pod ends.
        .with_env_filter(EnvFilter::new(format!("notify=warn,{filter}")))
        .with_target(false)
        .with_writer(messages.clone());
    match format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            subscriber.with_ansi(colours).init();
        }
    }
    messages
}

/// The way of the daemon's messages to standard error: at first each is written where it comes up,
/// so that there is no thread yet.
#[derive(Clone, Default)]
#[must_use = "a slow reader of standard error stops the proxy unless they are queued"]
pub struct Messages {
    /// Where they wait for a thread of their own.
    queue: Arc<OnceLock<NonBlocking>>,
}

impl Messages {
    /// Leaves the writing to a thread of its own from here on, so that it never blocks the caller.
    pub fn queue(self) -> Flush {
        let (output, flush) = non_blocking(io::stderr());
        // There is one daemon in a process, which asks once.
        let _ = self.queue.set(output);
        flush
    }
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = EitherWriter<NonBlocking, Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        match self.queue.get() {
            Some(queue) => EitherWriter::A(queue.clone()),
            None => EitherWriter::B(io::stderr()),
        }
    }
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
