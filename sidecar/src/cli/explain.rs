use std::fmt::Write as _;

use anyhow::bail;
use clap::ValueEnum;

use crate::codes::{self, Code, Group};

/// Columns of the narrowest terminal that is still in use.
const WIDTH: usize = 80;

/// What text stands behind below its heading.
const INDENT: &str = "    ";

/// Options of `sidecar explain`.
#[derive(clap::Args, Debug)]
pub struct Explain {
    /// A word of the log, the access log or the metrics; without, all there are
    #[arg(value_name = "CODE")]
    code: Option<String>,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Form,
}

/// How explanations are shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// For programs.
    Json,
    /// For documents.
    Markdown,
    /// For people.
    Text,
}

impl Explain {
    /// Prints what the code means, or every code.
    pub fn run(self) -> anyhow::Result<()> {
        let groups: Vec<_> = match self.code {
            None => Group::ALL.map(|group| (group, group.codes())).into(),
            Some(word) => match codes::all().find(|code| code.code == word) {
                Some(code) if matches!(self.output, Form::Text) => {
                    print!("{}", details(&code));
                    return Ok(());
                }
                Some(code) => vec![(code.group, vec![code])],
                None => bail!("{}", unknown(&word)),
            },
        };
        match self.output {
            Form::Json => {
                let codes: Vec<_> = groups.iter().flat_map(|(_, codes)| codes).collect();
                println!("{}", serde_json::to_string_pretty(&codes)?);
            }
            Form::Markdown => print!("{}", markdown(&groups)),
            Form::Text => print!("{}", list(&groups)),
        }
        Ok(())
    }
}

/// What is said of a word that is no code.
fn unknown(word: &str) -> String {
    let nearest: Vec<_> = { codes::nearest(word).into_iter() }
        .map(|code| format!("`{code}`"))
        .collect();
    match &nearest[..] {
        [] => format!("`{word}` is no code; `sidecar explain` lists all of them"),
        _ => format!(
            "`{word}` is no code; did you mean {}? `sidecar explain` lists all of them",
            nearest.join(" or ")
        ),
    }
}

/// All there is to say of one code.
fn details(code: &Code) -> String {
    let mut text = format!("{}\n", code.code);
    paragraph(&mut text, code.meaning);
    if let Some(hint) = code.hint {
        paragraph(&mut text, &format!("hint: {hint}"));
    }
    paragraph(&mut text, &format!("shown as {}", code.group.shown_in()));
    text
}

/// Codes under headings, each with its meaning.
fn list(groups: &[(Group, Vec<Code>)]) -> String {
    let mut text = String::new();
    for (group, codes) in groups {
        let title = group.title();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title}\n{}", "-".repeat(title.len()));
        for code in codes {
            let _ = writeln!(text, "{}", code.code);
            paragraph(&mut text, code.meaning);
        }
        text.push('\n');
    }
    text.push_str("`sidecar explain CODE` says what to do first.\n");
    text
}

/// A section for each group, with a table.
fn markdown(groups: &[(Group, Vec<Code>)]) -> String {
    let mut text = String::from(
        "# Codes\n\n\
         Why something was refused, has failed or was left alone: one word, the same in the log, in \
         the access log and in metrics.\n\
         `sidecar explain CODE` says what stands here; `sidecar explain -o markdown` has written \
         this page.\n",
    );
    for (group, codes) in groups {
        let _ = writeln!(
            text,
            "\n## {}\n\nShown as {}.\n\n| code | meaning | what to do first |\n|---|---|---|",
            group.title(),
            group.shown_in()
        );
        for code in codes {
            let hint = code.hint.unwrap_or("–");
            let _ = writeln!(text, "| `{}` | {} | {hint} |", code.code, code.meaning);
        }
    }
    text
}

/// Appends words, indented and broken into lines.
fn paragraph(text: &mut String, words: &str) {
    let mut column = WIDTH;
    for word in words.split(' ') {
        let length = word.chars().count();
        if column + 1 + length > WIDTH {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(INDENT);
            column = INDENT.len() + length;
        } else {
            text.push(' ');
            column += 1 + length;
        }
        text.push_str(word);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(Group, Vec<Code>)> {
        Group::ALL.map(|group| (group, group.codes())).into()
    }

    #[test]
    fn the_page_says_what_the_command_says() {
        let page = include_str!("../../../docs/codes.md");
        assert!(
            page == markdown(&all()),
            "write it with `sidecar explain -o markdown > docs/codes.md`"
        );
    }

    #[test]
    fn every_line_fits_into_80_columns() {
        let mut text = list(&all());
        text.extend(codes::all().map(|code| details(&code)));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        for code in codes::all() {
            assert!(
                text.contains(&format!("\n{}\n", code.code)),
                "{}",
                code.code
            );
        }
    }

    #[test]
    fn one_code_is_told_with_its_hint_and_place() {
        let code = { codes::all() }
            .find(|code| code.code == "denied")
            .expect("a code");
        assert_eq!(
            details(&code),
            "denied\n\
             \x20   The authorization does not let the client in.\n\
             \x20   hint: The access log names the rule. `sidecar policy explain` says the same\n\
             \x20   for any client and port, and why.\n\
             \x20   shown as `close` in the access log and in\n\
             \x20   `sidecar_connections_closed_total`, `reason` in the log and in\n\
             \x20   `sidecar_connections_failed_total`\n"
        );
    }

    #[test]
    fn a_mistyped_code_is_told_with_the_likely_ones() {
        assert_eq!(
            unknown("plaintext_refussed"),
            "`plaintext_refussed` is no code; did you mean `plaintext_refused`? \
             `sidecar explain` lists all of them"
        );
        assert_eq!(
            unknown("xyz"),
            "`xyz` is no code; `sidecar explain` lists all of them"
        );
    }
}
