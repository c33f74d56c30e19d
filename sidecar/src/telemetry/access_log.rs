use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use super::record::{Kind, Record};

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Words and `key=value` pairs.
    Text,
}

/// Writes a line for each connection that has ended.
pub struct AccessLog {
    /// How lines look, and where they go; `None` writes nothing.
    output: Option<(Format, Mutex<Box<dyn Write + Send>>)>,
}

impl AccessLog {
    /// Writes lines to `output`, which must not block.
    pub fn new(format: Format, output: impl Write + Send + 'static) -> Self {
        Self {
            output: Some((format, Mutex::new(Box::new(output)))),
        }
    }

    /// Writes nothing.
    pub const fn off() -> Self {
        Self { output: None }
    }

    pub(super) fn write(&self, record: &Record<'_>) {
        let Some((format, output)) = &self.output else {
            return;
        };
        if matches!(record.kind(), Kind::Opened | Kind::Request) {
            return;
        }
        let mut text = match format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        text.push('\n');
        // One call for each line, so lines never mix. A reader that is gone is no reason to stop.
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = output.write_all(text.as_bytes());
    }
}
