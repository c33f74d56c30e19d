//! `docs/live.md` shows commands, flags and columns that there are.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

const DOCUMENT: &str = include_str!("../../docs/live.md");

/// The commands of the document.
const COMMANDS: [&str; 5] = ["connections", "edges", "pods", "tap", "top"];

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    fs::read_to_string(path.join(name)).expect("a golden file")
}

/// What the document shows below the prompt of a command line.
fn shown(command: &str) -> impl Iterator<Item = &'static str> {
    let (_, shown) = DOCUMENT
        .split_once(&format!("$ sidecar {command}\n"))
        .unwrap_or_else(|| panic!("the document does not show {command}"));
    shown.lines().take_while(|line| *line != "```")
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn tables_have_the_columns_that_are_printed() {
    for (command, file) in [
        ("connections", "connections-wide.txt"),
        ("edges", "edges-wide.txt"),
        ("pods", "pods-wide.txt"),
        ("top --once", "top-wide.txt"),
    ] {
        let golden = golden(file);
        let mut columns = words(golden.lines().next().expect("columns"));
        // They come up with the first connection that failed, or pod that is not captured, and
        // there is none in the document.
        columns.retain(|column| !["FAILED", "WHY"].contains(column) || command == "top --once");
        let mut shown = shown(command);
        assert_eq!(words(shown.next().expect("a line")), columns, "{command}");
        for row in shown {
            // A tick and an identity are one cell of two words.
            let ticked = usize::from(row.contains("√ spiffe://"));
            assert_eq!(words(row).len(), columns.len() + ticked, "{row}");
        }
    }
}

#[test]
fn the_screen_has_the_columns_and_keys_that_are_drawn() {
    let golden = golden("top-screen.txt");
    let drawn: Vec<_> = golden.lines().collect();
    let shown: Vec<_> = shown("top").collect();
    assert_eq!(shown.get(2), drawn.get(2));
    assert_eq!(shown.last(), drawn.last());
    let is_of_its_width = |line: &&str| line.chars().count() <= 80;
    assert!(shown.iter().all(is_of_its_width));
}

#[test]
fn lines_of_a_tap_have_the_keys_that_are_told() {
    let golden = golden("tap.txt");
    let key = |word: &str| word.split_once('=').map(|(key, _)| key.to_owned());
    let told: BTreeSet<_> = golden.split_whitespace().filter_map(key).collect();
    for line in shown("tap --kind request,closed") {
        let words = words(line);
        assert!(["request", "closed"].contains(&words[1]), "{line}");
        for word in &words[3..] {
            let key = key(word).expect("a key and a value");
            assert!(told.contains(&key), "{key} is not told: {line}");
        }
    }
}

#[test]
fn every_flag_is_documented() {
    /// Of every command there is.
    const COMMON: &str = "--help";
    let mut flags = BTreeSet::new();
    for command in COMMANDS {
        let help = Command::new(env!("CARGO_BIN_EXE_sidecar"))
            .args([command, "--help"])
            .output()
            .expect("the program can be run");
        let help = String::from_utf8(help.stdout).expect("text");
        let flag = |line: &str| {
            let named = words(line.trim_start().strip_prefix("-o, ").unwrap_or(line))
                .first()
                .copied()?
                .to_owned();
            named.starts_with("--").then_some(named)
        };
        flags.extend(help.lines().filter_map(flag));
    }
    flags.remove(COMMON);
    // Its short form is what the document uses.
    assert!(flags.remove("--output") && DOCUMENT.contains("`-o json`"));
    let documented: BTreeSet<_> = DOCUMENT
        .split(|letter: char| !letter.is_ascii_lowercase() && letter != '-')
        .filter(|word| {
            let name = word.strip_prefix("--");
            name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, flags);
}
