use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use super::*;
use crate::{config::Args, policy::Mode, telemetry::Options};

/// What happened, in order.
type Steps = Arc<Mutex<Vec<String>>>;

/// Tables that write down what they are told, and what connections are held to by then.
struct Written {
    steps: Steps,
    policy: watch::Receiver<Arc<Policy>>,
    fails: bool,
    /// How often somebody else has the turn.
    busy: usize,
}

impl Written {
    fn write(&self, step: &str, policy: &Policy) {
        let (table, connections) = (inbound(policy), inbound(&self.policy.borrow()));
        let line = format!("{step} to {table} while connections are {connections}");
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

impl Tables for Written {
    fn try_begin(&mut self) -> Result<bool, bpf::Error> {
        let is_ours = self.busy == 0;
        self.busy = self.busy.saturating_sub(1);
        let step = if is_ours { "begin" } else { "wait" };
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(step.to_owned());
        Ok(is_ours)
    }

    fn end(&mut self) {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push("end".to_owned());
    }

    fn tighten(&mut self, policy: &Policy) -> Result<(), bpf::Error> {
        self.write("tighten", policy);
        if self.fails {
            return Err(bpf::Error::Facts(io::ErrorKind::OutOfMemory.into()));
        }
        Ok(())
    }

    fn loosen(&mut self, policy: &Policy) -> Result<(), bpf::Error> {
        self.write("loosen", policy);
        Ok(())
    }
}

fn inbound(policy: &Policy) -> Mode {
    policy.inbound.mode(80, [198, 18, 0, 1].into())
}

/// A settings file and what watches it.
struct Fixture {
    _dir: TempDir,
    file: PathBuf,
    steps: Steps,
    telemetry: Telemetry,
    reload: Reload<Written>,
}

impl Fixture {
    /// Started with this file, and `--workers 2`.
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("sidecar.yaml");
        fs::write(&file, text).expect("a writable directory");
        let args = Args {
            config: Some(file.clone()),
            settings: Settings {
                workers: Some("2".parse().expect("a number")),
                ..Settings::default()
            },
        };
        let source = args.over(Settings::default());
        let config = source.load().expect("valid settings");
        let (sender, policy) = watch::channel(Arc::new(config.policy));
        let steps = Steps::default();
        let tables = Written {
            steps: Arc::clone(&steps),
            policy,
            fails: false,
            busy: 0,
        };
        let telemetry = Telemetry::new(Options::default()).expect("unique names");
        let reload = Reload::new(source, config.settings, sender, tables, telemetry.clone());
        Self {
            _dir: dir,
            file,
            steps,
            telemetry,
            reload,
        }
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).expect("a writable directory");
    }

    /// The mode that connections are held to.
    fn mode(&self) -> Mode {
        inbound(&self.reload.policy.borrow())
    }

    fn take_over(&mut self) -> Result<(), String> {
        let settings = self.reload.source.reread();
        let settings = settings.map_err(|error| error.to_string())?;
        self.reload.take_over(settings)
    }

    fn steps(&self) -> Vec<String> {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn counts(&self, sample: &str) -> bool {
        let metrics = self.telemetry.render().expect("metrics");
        metrics.lines().any(|line| line == sample)
    }
}

#[tokio::test(start_paused = true)]
async fn the_kernel_is_stricter_before_connections_are_told_and_laxer_only_after() {
    let mut fixture = Fixture::new("inbound: strict");
    fixture.write("inbound: permissive");
    fixture.reload.look(false).await;
    assert_eq!(fixture.mode(), Mode::Permissive);
    assert_eq!(
        fixture.steps(),
        [
            "begin",
            "tighten to permissive while connections are strict",
            "loosen to permissive while connections are permissive",
            "end",
        ]
    );
    assert!(fixture.counts(r#"sidecar_config_reloads_total{outcome="taken_over"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_somebody_else_changes_what_the_kernel_decides_by() {
    let mut fixture = Fixture::new("inbound: strict");
    fixture.reload.tables.busy = 2;
    fixture.write("inbound: permissive");
    fixture.reload.look(false).await;
    assert_eq!(fixture.steps()[..3], ["wait", "wait", "begin"]);
    assert_eq!(fixture.steps().last().map(String::as_str), Some("end"));
    assert_eq!(fixture.mode(), Mode::Permissive);
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_keeps_the_old_settings_and_is_told_once() {
    let mut fixture = Fixture::new("inbound: strict");
    for bad in ["inbound: off\nauthorization: {rules: [{name: a}]}", ""] {
        fixture.write(bad);
        fixture.reload.look(false).await;
        fixture.reload.look(false).await;
        assert_eq!(fixture.mode(), Mode::Strict);
        assert!(fixture.counts("sidecar_config_last_reload_successful 0"));
    }
    assert!(fixture.counts(r#"sidecar_config_reloads_total{outcome="refused"} 2"#));
    assert_eq!(fixture.steps(), [""; 0]);
    fixture.write("inbound: permissive");
    fixture.reload.look(false).await;
    assert_eq!(fixture.mode(), Mode::Permissive);
    assert!(fixture.counts("sidecar_config_last_reload_successful 1"));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_as_it_is_is_taken_over_only_when_asked_to() {
    let mut fixture = Fixture::new("inbound: strict");
    fixture.reload.look(false).await;
    assert_eq!(fixture.steps(), [""; 0]);
    fixture.reload.look(true).await;
    assert!(fixture.counts(r#"sidecar_config_reloads_total{outcome="taken_over"} 1"#));
}

#[test]
fn a_missing_or_wrong_file_is_named_with_its_line() {
    let mut fixture = Fixture::new("inbound: strict");
    let path = fixture.file.display().to_string();
    fixture.write("inbound: strict\nauthorization:\n  defualt: deny\n");
    let why = fixture.take_over().expect_err("an unknown key");
    assert_eq!(
        why,
        format!("{path}:3: unknown key `defualt`; did you mean `default`?")
    );
    fs::remove_file(&fixture.file).expect("a file");
    let why = fixture.take_over().expect_err("no file");
    assert!(
        why.starts_with(&format!("the settings file {path} cannot be read: ")),
        "{why}"
    );
}

#[test]
fn when_the_kernel_refuses_everything_is_as_it_was() {
    let mut fixture = Fixture::new("inbound: strict");
    fixture.reload.tables.fails = true;
    fixture.write("inbound: permissive");
    let why = fixture.take_over().expect_err("a failing kernel");
    assert!(
        why.starts_with(
            "kept the settings as they were: the kernel cannot be changed to the new ones: "
        ),
        "{why}"
    );
    assert_eq!(fixture.mode(), Mode::Strict);
    assert_eq!(
        fixture.steps().last().map(String::as_str),
        Some("loosen to strict while connections are strict")
    );
}

#[test]
fn flags_still_win_and_what_takes_a_restart_stops_nothing() {
    let mut fixture = Fixture::new("inbound: strict\nworkers: 1");
    fixture.write("inbound: permissive\nworkers: 3\nadmin: 127.0.0.1:1");
    let settings = fixture.reload.source.reread().expect("valid settings");
    assert_eq!(
        settings.differing(&fixture.reload.started),
        ["admin", "inbound"]
    );
    fixture.take_over().expect("valid settings");
    assert_eq!(fixture.mode(), Mode::Permissive);
}
