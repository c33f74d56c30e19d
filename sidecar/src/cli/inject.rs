//! `sidecar inject`: manifests in, manifests out.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};

use super::injection::Injection;
use crate::inject::{Change, Unasked, manifests};

/// Stands for standard input among files.
const STDIN: &str = "-";

/// Options of `sidecar inject`.
#[derive(clap::Args, Debug)]
pub struct Inject {
    /// Manifests in YAML or JSON; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    injection: Injection,

    /// Leave pods alone that do not say `sidecar.mesh/inject: enabled`; else those that say
    /// `node` or `disabled` are
    #[arg(long)]
    only_enabled: bool,

    /// Take out what was added before, instead
    #[arg(long, conflicts_with_all = ["only_enabled", "injection"])]
    uninject: bool,
}

impl Inject {
    /// Writes the manifests to standard output, and what became of each to standard error.
    /// If anything is wrong with any, nothing is written.
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.injection.options()?;
        let change = if self.uninject {
            Change::Uninject
        } else {
            Change::Inject {
                options: &options,
                unasked: if self.only_enabled {
                    Unasked::Skip
                } else {
                    Unasked::Inject
                },
            }
        };
        let mut all = String::new();
        let mut outcomes = Vec::new();
        for file in &self.files {
            let name = file.display();
            let (text, of_file) =
                manifests(&read(file)?, change).with_context(|| format!("{name}"))?;
            join(&mut all, &text);
            outcomes.extend(of_file);
        }
        io::stdout()
            .write_all(all.as_bytes())
            .and_then(|()| io::stdout().flush())
            .context("cannot write to standard output")?;
        for outcome in outcomes {
            eprintln!("{}", super::output::harmless_line(&outcome.to_string()));
        }
        Ok(())
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if file.as_os_str() == STDIN {
        io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let Ok(text) = String::from_utf8(bytes) else {
        bail!("{}: it is not UTF-8, as manifests are", file.display());
    };
    Ok(text)
}

/// Several files are one stream of documents.
fn join(all: &mut String, text: &str) {
    if !all.is_empty() {
        if !all.ends_with('\n') {
            all.push('\n');
        }
        let mut lines = text.lines();
        let first = lines.find(|line| !line.trim().is_empty() && !line.starts_with('#'));
        match first.unwrap_or_default() {
            // Directives stand between the end of a document and the next one (YAML 1.2, section 9.2).
            directive if directive.starts_with('%') => all.push_str("...\n"),
            _ if text.starts_with("---") => {}
            _ => all.push_str("---\n"),
        }
    }
    all.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Fate;

    #[test]
    fn files_are_one_stream_of_documents() {
        let joined = |texts: &[&str]| {
            let mut all = String::new();
            for text in texts {
                join(&mut all, text);
            }
            all
        };
        assert_eq!(joined(&["a: 1", "b: 2\n"]), "a: 1\n---\nb: 2\n");
        assert_eq!(joined(&["a: 1\n", "---\nb: 2\n"]), "a: 1\n---\nb: 2\n");
        let pod = "%YAML 1.2\n---\napiVersion: v1\nkind: Pod\nspec: {containers: [{name: app}]}\n";
        for first in [pod, "# nothing\n"] {
            for second in [pod, &format!("# said before\n\n{pod}")] {
                let (_, outcomes) = manifests(&joined(&[first, second]), Change::Uninject)
                    .expect("one that can be read");
                let pods = usize::from(first == pod) + 1;
                assert_eq!(outcomes.len(), pods, "{outcomes:?}");
                assert!(outcomes.iter().all(|one| one.result == Fate::Unchanged));
            }
        }
    }
}
