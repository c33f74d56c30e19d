//! Steps and programs: each says what it does before it starts, each step how long it took.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt,
    path::Path,
    process::{Command, Output},
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::workspace;

/// Does `work` as one step with a name, a mark for its outcome and the time it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("▸ {name}");
    let started = Instant::now();
    let outcome = work();
    let mark = if outcome.is_ok() { '√' } else { '×' };
    eprintln!("{mark} {name}: {:.1} s", started.elapsed().as_secs_f64());
    outcome
}

/// Prints `command` as a line to paste into a shell.
pub fn announce(command: &Command) {
    eprintln!("  $ {}", Line(command));
}

/// Announces `command`, runs it on our own terminal, and fails unless it succeeds.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    announce(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("this command failed with {status}: {}", Line(command));
    }
    Ok(())
}

/// What `command` prints, or `None` where it cannot be started or fails: a question to the machine,
/// asked silently.
pub fn ask(command: &mut Command) -> Option<String> {
    let Output { status, stdout, .. } = command.output().ok()?;
    status
        .success()
        .then(|| String::from_utf8_lossy(&stdout).trim().to_owned())
}

/// The host's cargo, at the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root());
    command
}

/// `PATH` with `directory` before everything else.
pub fn path_with(directory: &Path) -> OsString {
    let mut path = OsString::from(directory);
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// A command as one would type it, with the variables that were set for it.
struct Line<'a>(&'a Command);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.get_envs() {
            let Some(value) = value else { continue };
            match added_to_path(name, value) {
                Some(directories) => write!(f, "PATH={directories}:$PATH ")?,
                None => write!(f, "{}={} ", name.display(), quoted(value))?,
            }
        }
        f.write_str(&quoted(self.0.get_program()))?;
        self.0
            .get_args()
            .try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

/// What a `PATH` that was made by [`path_with`] has before everyone's.
fn added_to_path(name: &OsStr, value: &OsStr) -> Option<String> {
    let everyones = std::env::var("PATH").ok().filter(|_| name == "PATH")?;
    let added = value
        .to_str()?
        .strip_suffix(&everyones)?
        .strip_suffix(':')?;
    Some(added.to_owned())
}

fn quoted(word: &OsStr) -> Cow<'_, str> {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command.env("WORDS", "it's two").args(["%s\n", "a=b", ""]);

        assert_eq!(
            Line(&command).to_string(),
            r"WORDS='it'\''s two' printf '%s
' a=b ''"
        );
    }

    #[test]
    fn a_printed_path_shows_only_what_was_added() {
        let mut command = Command::new("true");
        command.env("PATH", path_with(Path::new("/opt/bin")));

        assert_eq!(Line(&command).to_string(), "PATH=/opt/bin:$PATH true");
    }

    #[test]
    fn a_failing_command_is_named_in_the_error() {
        let error = run(&mut Command::new("false")).expect_err("`false` succeeded");

        assert!(
            error.to_string().ends_with("exit status: 1: false"),
            "{error}"
        );
    }

    #[test]
    fn asking_a_program_that_does_not_exist_gives_nothing() {
        assert_eq!(ask(&mut Command::new("/nonexistent/program")), None);
    }
}
