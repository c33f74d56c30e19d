//! What the figures were measured on, and with.

use std::{fs, path::Path, process::Command, thread};

use serde_json::{Value, json};

/// The kernel, and the processors that this process may use.
pub fn describe() -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model(&read("/proc/cpuinfo")),
        "cores": thread::available_parallelism().ok(),
    })
}

/// The first processor's name, where the kernel tells one.
fn model(processors: &str) -> Option<&str> {
    processors.lines().find_map(|line| {
        let (field, name) = line.split_once(':')?;
        (field.trim() == "model name").then_some(name.trim())
    })
}

/// The line in which a program tells its version, on whichever of its outputs.
pub fn version(program: &Path, arguments: &[impl AsRef<str>]) -> Option<String> {
    let arguments = arguments.iter().map(AsRef::as_ref);
    let output = Command::new(program).args(arguments).output().ok()?;
    let lines = [output.stdout, output.stderr].concat();
    let line = first_with_number(&String::from_utf8_lossy(&lines))?;
    // Some say where they are first, which tells nothing about them.
    let line = line
        .strip_prefix(&*program.to_string_lossy())
        .unwrap_or(&line);
    Some(line.trim().to_owned())
}

/// The first line that has a digit: some greet before.
fn first_with_number(lines: &str) -> Option<String> {
    let line = lines.lines().find(|line| line.contains(char::is_numeric))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_tells_the_model() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\n"),
            Some("Some CPU @ 2 GHz")
        );
        assert_eq!(model(""), None);
    }

    #[test]
    fn a_greeting_is_no_version() {
        assert_eq!(
            first_with_number("Starting up\n stunnel 5.68 on x86_64\n").as_deref(),
            Some("stunnel 5.68 on x86_64")
        );
    }
}
