//! A collector of traces, and what it was sent.

use std::{collections::BTreeMap, env, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Pod, Process, wait};

/// A span as the collector got it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Span {
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// In hexadecimal digits, empty without a parent.
    pub parent_span_id: String,
    /// As in the header.
    pub trace_state: String,
    /// `client`, `server` or `other`.
    pub kind: String,
    /// What was done.
    pub name: String,
    /// Its status says so.
    pub is_error: bool,
    /// In nanoseconds since the epoch.
    pub start: u64,
    /// In nanoseconds since the epoch.
    pub end: u64,
    /// Each value as text.
    pub attributes: BTreeMap<String, String>,
    /// Who has sent it.
    pub resource: BTreeMap<String, String>,
}

/// A collector in a pod; killed when dropped.
#[derive(Debug)]
pub struct Collector {
    process: Process,
}

impl Collector {
    /// Where it listens.
    pub const PORT: u16 = 4317;

    /// Starts the program in `examples/otlp_collector.rs`.
    #[track_caller]
    pub fn start(pod: &Pod) -> Self {
        let tests = env::current_exe().expect("a program knows where it is");
        let built = tests.parent().and_then(Path::parent);
        let path = built
            .expect("cargo's directories")
            .join("examples/otlp_collector");
        assert!(
            path.exists(),
            "there is no {}: run `cargo build -p sidecar-tests --examples`",
            path.display()
        );
        let program = pod.program(path).arg(format!("[::]:{}", Self::PORT));
        Self {
            process: program.listen(Self::PORT),
        }
    }

    /// The flag that sends spans to the collector in this pod.
    pub fn flag(pod: &Pod) -> String {
        format!("--traces=http://{}:{}", pod.v4(), Self::PORT)
    }

    /// What it was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        let stdout = self.process.stdout();
        let lines = stdout
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    /// Waits until it was sent `count` spans, and checks that there are no more.
    #[track_caller]
    pub fn spans_when(&self, count: usize) -> Vec<Span> {
        let found = wait::within(wait::DEADLINE, || {
            Some(self.spans()).filter(|spans| spans.len() >= count)
        });
        let spans = found.unwrap_or_else(|| self.spans());
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}
