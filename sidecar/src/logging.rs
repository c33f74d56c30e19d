//! Where the daemon's own messages and the access log go.

mod file;

use std::{
    io::{self, Stderr, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::EitherWriter},
};

pub use self::file::{LogFile, Reopener};
use crate::{
    config::{self, LogFormat},
    telemetry::{AccessLog, Choice, Format},
};

/// Lines that may wait for a slow reader before more are dropped: of the length that most have, some
/// megabytes.
const LINES: usize = 16_384;

/// Writes what still waits when it is dropped.
#[must_use = "lines that wait are written when it is dropped"]
pub struct Flush {
    guard: Option<WorkerGuard>,
}

impl Drop for Flush {
    /// Waits for the lines, but not for a reader that does not read: then the guard itself would
    /// complain on standard output, and wait there.
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(2);
        let guard = self.guard.take();
        let (written, done) = mpsc::channel();
        let flush = thread::Builder::new().spawn(move || {
            drop(guard);
            let _ = written.send(());
        });
        if flush.is_ok() {
            let _ = done.recv_timeout(LONGEST);
        }
    }
}

/// Begins to write the daemon's messages to standard error.
///
/// `filter` was checked when the configuration was read.
pub fn init(filter: &str, format: LogFormat) -> Messages {
    let messages = Messages::default();
    let subscriber = tracing_subscriber::fmt()
        // The one tells of every directory that goes while it is watched, as when a pod ends; the other
        // of a limit that it cannot raise, of which our own sentence says what to do.
        .with_env_filter(EnvFilter::new(format!(
            "notify=warn,aya::sys=error,{filter}"
        )))
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

/// The way of the lines of access logs to one place, for as many logs as there are pods.
#[derive(Clone)]
pub struct Lines {
    /// How they look, and what takes them; `None` if nothing is logged.
    output: Option<(Format, NonBlocking)>,
    /// How many could not be written.
    failed: Arc<AtomicU64>,
}

impl Lines {
    /// A log of these lines.
    pub fn log(&self, choice: Choice) -> AccessLog {
        let Some((format, output)) = &self.output else {
            return AccessLog::off();
        };
        let (queue, failed) = (output.error_counter(), Arc::clone(&self.failed));
        let dropped = move || {
            let queue = u64::try_from(queue.dropped_lines()).unwrap_or(u64::MAX);
            queue.saturating_add(failed.load(Ordering::Relaxed))
        };
        AccessLog::new(*format, choice, output.clone(), dropped)
    }
}

/// An access log that is being written.
pub struct OpenLog {
    /// Takes the lines.
    pub access_log: AccessLog,
    /// Writes those that wait at the end; `None` if nothing is logged.
    pub flush: Option<Flush>,
    /// Opens the file again, if it is a file.
    pub reopener: Option<Reopener>,
}

/// Begins to write the access log to this file, or to standard output, unless it is off.
pub fn access_log(wanted: config::AccessLog, choice: Choice, file: Option<LogFile>) -> OpenLog {
    let OpenLines {
        lines,
        flush,
        reopener,
    } = access_log_lines(wanted, file);
    OpenLog {
        access_log: lines.log(choice),
        flush,
        reopener,
    }
}

/// The place of many access logs that is being written to.
pub struct OpenLines {
    /// Takes the lines.
    pub lines: Lines,
    /// Writes those that wait at the end; `None` if nothing is logged.
    pub flush: Option<Flush>,
    /// Opens the file again, if it is a file.
    pub reopener: Option<Reopener>,
}

/// Begins to write lines of access logs to this file, or to standard output, unless they are off.
pub fn access_log_lines(wanted: config::AccessLog, file: Option<LogFile>) -> OpenLines {
    let failed = Arc::new(AtomicU64::new(0));
    let format = match wanted {
        config::AccessLog::Json => Format::Json,
        config::AccessLog::Off => {
            return OpenLines {
                lines: Lines {
                    output: None,
                    failed,
                },
                flush: None,
                reopener: None,
            };
        }
        config::AccessLog::Text => Format::Text,
    };
    let (output, reopener): (Box<dyn Write + Send>, _) = match file.map(LogFile::split) {
        Some((appender, reopener)) => (Box::new(appender), Some(reopener)),
        None => (Box::new(io::stdout()), None),
    };
    let (output, flush) = non_blocking(Counting::new(output, Arc::clone(&failed)));
    OpenLines {
        lines: Lines {
            output: Some((format, output)),
            failed,
        },
        flush: Some(flush),
        reopener,
    }
}

/// Writes as many lines at once as a pipe takes whole, and counts those that its output does not take, as
/// when a disk is full.
struct Counting<W: Write> {
    output: W,
    /// Lines to be written.
    waiting: Vec<u8>,
    /// How many these are.
    lines: u64,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Counting<W> {
    fn new(output: W, failed: Arc<AtomicU64>) -> Self {
        Self {
            output,
            waiting: Vec::with_capacity(libc::PIPE_BUF),
            lines: 0,
            failed,
        }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let written = self.output.write_all(&self.waiting);
        if written.is_err() {
            self.failed.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.waiting.clear();
        self.lines = 0;
        written
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        // No others' line gets into ours when they write to the same pipe (pipe(7)).
        let fits = self.waiting.len() + line.len() <= libc::PIPE_BUF;
        let written = if fits { Ok(()) } else { self.write_waiting() };
        self.waiting.extend_from_slice(line);
        self.lines += 1;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_waiting()?;
        self.output.flush()
    }
}

impl<W: Write> Drop for Counting<W> {
    fn drop(&mut self) {
        // Whoever could be told has gone.
        let _ = self.flush();
    }
}

/// Lets lines gather after it has written those that waited: a thread that sleeps for a moment is woken for
/// many lines at once, and else for each.
struct Paced<W>(W);

impl<W: Write> Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        /// Nobody sees the difference, and no queue fills in it.
        const MOMENT: Duration = Duration::from_millis(5);
        let flushed = self.0.flush();
        thread::sleep(MOMENT);
        flushed
    }
}

/// A writer that never blocks the caller: a thread of its own writes, and lines are dropped when
/// it cannot keep up.
fn non_blocking(output: impl Write + Send + 'static) -> (NonBlocking, Flush) {
    let (output, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .finish(Paced(output));
    (output, Flush { guard: Some(guard) })
}

#[cfg(test)]
mod tests {
    use std::{
        io::PipeReader,
        time::{Duration, Instant},
    };

    use super::*;

    /// A writer to a pipe that nobody reads, for as long as its other end is held.
    fn unread() -> (PipeReader, impl Write + Send + 'static) {
        io::pipe().expect("a pipe")
    }

    #[test]
    fn a_reader_that_does_not_read_makes_nobody_wait() {
        let (_reader, writer) = unread();
        let (mut output, flush) = non_blocking(writer);
        let (line, count) = ([b'x'; 1024], 2 * LINES);
        let started = Instant::now();
        for _ in 0..count {
            output.write_all(&line).expect("it never fails");
        }
        let dropped = output.error_counter().dropped_lines();
        // The pipe itself takes 64 lines, and the queue the others.
        assert!(
            (count - LINES - 100..=count - LINES).contains(&dropped),
            "{dropped}"
        );
        drop(flush);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let failed = Arc::new(AtomicU64::new(0));
        let (reader, output) = io::pipe().expect("a pipe");
        drop(reader);
        let mut counting = Counting::new(output, Arc::clone(&failed));
        for count in 1..=2 {
            for _ in 0..3 {
                counting.write_all(b"line\n").expect("it waits");
            }
            assert!(counting.flush().is_err());
            assert_eq!(failed.load(Ordering::Relaxed), 3 * count);
        }
    }

    #[test]
    fn lines_are_written_together_and_never_in_parts() {
        /// Notes each write.
        #[derive(Default)]
        struct Writes(Vec<Vec<u8>>);

        impl Write for Writes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let mut writes = Writes::default();
        let mut counting = Counting::new(&mut writes, Arc::default());
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let long = [&[b'y'; 9_999][..], b"\n"].concat();
        for line in [&line, &line, &line, &line, &line, &long, &line] {
            counting.write_all(line).expect("it is taken");
        }
        counting.flush().expect("it is taken");
        drop(counting);
        let lengths: Vec<_> = writes.0.iter().map(Vec::len).collect();
        assert_eq!(lengths, [4_000, 1_000, 10_000, 1_000]);
    }

    #[test]
    fn what_waits_is_written_at_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (mut output, flush) = non_blocking(file.reopen().expect("a file"));
        for _ in 0..1000 {
            output.write_all(b"line\n").expect("it never fails");
        }
        drop(flush);
        let written = std::fs::read_to_string(file.path()).expect("a file");
        assert_eq!(written.lines().count(), 1000);
    }
}
