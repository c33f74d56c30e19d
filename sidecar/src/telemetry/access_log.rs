use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    counted::{Counted, Read},
    record::{Kind, Record},
};

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Words and `key=value` pairs.
    Text,
}

/// Which lines are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Of these kinds.
    pub events: Vec<Kind>,
    /// Of this share of the connections, from 0 to 1. What was denied or has failed is written
    /// of all.
    pub share: f64,
}

impl Default for Choice {
    /// A line for each connection, when it ends.
    fn default() -> Self {
        Self {
            events: vec![Kind::Closed, Kind::Denied, Kind::Failed],
            share: 1.0,
        }
    }
}

impl Choice {
    /// Is this line written, of a connection that is or is not among the share?
    fn takes(&self, kind: Kind, is_sampled: bool) -> bool {
        let is_of_all = matches!(kind, Kind::Denied | Kind::Failed);
        (is_sampled || is_of_all) && self.events.contains(&kind)
    }
}

/// Writes lines about what happens on connections.
pub struct AccessLog {
    /// `None` writes nothing.
    output: Option<Output>,
    /// What could not be written.
    dropped: Read,
}

struct Output {
    format: Format,
    choice: Choice,
    writer: Mutex<Box<dyn Write + Send>>,
    /// Makes random numbers of numbers.
    random: RandomState,
    /// The number of the next connection.
    next: AtomicU64,
}

impl AccessLog {
    /// Writes lines to `writer`, which must not block, and tells by `dropped` how many it has
    /// dropped instead.
    pub fn new(
        format: Format,
        choice: Choice,
        writer: impl Write + Send + 'static,
        dropped: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            output: Some(Output {
                format,
                choice,
                writer: Mutex::new(Box::new(writer)),
                random: RandomState::new(),
                next: AtomicU64::new(0),
            }),
            dropped: Arc::new(dropped),
        }
    }

    /// Writes nothing.
    pub fn off() -> Self {
        Self {
            output: None,
            dropped: Arc::new(|| 0),
        }
    }

    /// Draws lots for a connection: is it among the share of which everything is written?
    pub(super) fn samples(&self) -> bool {
        self.output.as_ref().is_some_and(Output::samples)
    }

    /// Writes a line, if it is one of those that are wanted. It is built only then.
    pub(super) fn write(&self, record: &Record<'_>) {
        let Some(output) = &self.output else {
            return;
        };
        if !output.choice.takes(record.kind(), record.is_sampled) {
            return;
        }
        let mut text = match output.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        text.push('\n');
        // One call for each line, so lines never mix. A reader that is gone is no reason to stop.
        let mut writer = output.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.write_all(text.as_bytes());
    }

    /// How many lines were dropped, as a metric.
    pub(super) fn dropped_lines(&self) -> Result<Counted, prometheus::Error> {
        Counted::new(
            "sidecar_access_log_dropped_lines_total",
            "Lines of the access log that nobody took fast enough, or that could not be written.",
            Arc::clone(&self.dropped),
        )
    }
}

impl Output {
    fn samples(&self) -> bool {
        // Numbers from 0 to 1 are as likely as each other; 1 itself never comes.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are fine enough")]
        let number = || {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            (self.random.hash_one(next) >> 11) as f64 / (1_u64 << 53) as f64
        };
        self.choice.share >= 1.0 || number() < self.choice.share
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{super::record::Named, *};
    use crate::{
        policy::Direction,
        proxy::{ClientAddr, Close, OrigDst},
        telemetry::{
            TlsUse,
            record::{End, What},
        },
    };

    /// What was written, to be looked at.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn ended(was_open: bool, close: Close) -> What<'static> {
        What::Ended(End {
            was_open,
            sent: 0,
            received: 0,
            duration: Duration::ZERO,
            protocol: None,
            lost: None,
            close,
            reason: None,
        })
    }

    fn everything() -> Choice {
        Choice {
            events: Kind::ALL.into(),
            share: 1.0,
        }
    }

    /// The kinds of the lines that are written of a connection that opens and closes, and of one
    /// each that was denied and that has failed.
    fn kinds(choice: Choice, is_sampled: bool) -> Vec<String> {
        let written = Written::default();
        let log = AccessLog::new(Format::Text, choice, written.clone(), || 0);
        for what in [
            What::Opened,
            ended(true, Close::Eof),
            ended(false, Close::Denied),
            ended(false, Close::ConnectRefused),
        ] {
            let address = "198.18.0.1:1".parse().expect("an address");
            log.write(&Record {
                time: SystemTime::UNIX_EPOCH,
                direction: Direction::Inbound,
                client: ClientAddr(address),
                destination: OrigDst(address),
                tls: &TlsUse::Pending,
                own: "",
                rule: None,
                named: Named::default(),
                is_sampled,
                what,
            });
        }
        let text = String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text");
        text.lines()
            .map(|line| line.split(' ').nth(1).expect("a kind").to_owned())
            .collect()
    }

    #[test]
    fn only_chosen_kinds_are_written() {
        let all = kinds(everything(), true);
        assert_eq!(all, ["opened", "closed", "denied", "failed"]);
        for kind in [Kind::Opened, Kind::Closed, Kind::Denied, Kind::Failed] {
            let choice = Choice {
                events: vec![kind],
                ..everything()
            };
            assert_eq!(kinds(choice, true), [kind.as_str()]);
        }
    }

    #[test]
    fn what_was_denied_or_has_failed_is_written_of_every_connection() {
        assert_eq!(kinds(everything(), false), ["denied", "failed"]);
    }

    #[test]
    fn the_share_of_connections_is_as_set() {
        let sampled = |share| {
            let choice = Choice {
                share,
                ..everything()
            };
            let log = AccessLog::new(Format::Json, choice, Written::default(), || 0);
            (0..10_000).filter(|_| log.samples()).count()
        };
        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 10_000);
        // Six standard deviations on either side.
        assert!((820..=1180).contains(&sampled(0.1)));
        assert!(!AccessLog::off().samples());
    }
}
