//! What commands print, some of which others have said: whoever listens where a sidecar is expected.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// How a command shows what it found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// Prints for people and programs alike, and nothing that a terminal takes for a command. To break means that nobody reads on, such as a `head` that has
/// seen enough.
pub(super) fn print(text: &str, output: Output) -> anyhow::Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    let text = match output {
        // Programs get what was said, whatever it is.
        Output::Json if !out.is_terminal() => Cow::Borrowed(text),
        Output::Json | Output::Text => harmless(text),
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// A text without control characters, except for the ends of lines: they are escaped as in JSON.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    escape(text, |character| character != '\n')
}

/// The same, in a single line.
pub(super) fn harmless_line(text: &str) -> Cow<'_, str> {
    escape(text, |_| true)
}

fn escape(text: &str, is_meant: fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |character: char| character.is_control() && is_meant(character);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Several lines of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_commands_a_terminal() {
        let hostile = "a\x1b]0;owned\x07\r\u{9b}2J\x7f\tb\n√ c\n";
        assert_eq!(
            harmless(hostile),
            "a\\u001b]0;owned\\u0007\\u000d\\u009b2J\\u007f\\u0009b\n√ c\n"
        );
        assert_eq!(harmless_line("a\nb"), "a\\u000ab");
        assert!(matches!(harmless("√ plain\n"), Cow::Borrowed(_)));
    }
}
