use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use super::run::runtime;
use crate::{
    config::{self, AdminAddress, Settings},
    daemon::Captured,
    logging,
    pod::{self, Cgroup},
};

/// Options of `sidecar exec`.
#[derive(clap::Args, Debug)]
pub struct Exec {
    #[command(flatten)]
    config: config::Args,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Exec {
    /// Runs the command in a cgroup of its own, captured, and exits as it does.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // Several may run side by side, and nobody has to find the admin endpoint of each.
        let source = self.config.over(Settings {
            admin: Some(AdminAddress::ANY_LOOPBACK_PORT),
            ..Settings::default()
        });
        let config = source.load()?;
        let _flush = logging::init(&config.log, config.log_format).queue();
        let parent = match &config.cgroup {
            Some(path) => path.clone(),
            None => pod::own_cgroup()?,
        };
        if let Some(netns) = &config.netns {
            pod::enter_netns(netns)?;
        }
        let place = Place::create(&parent)?;
        // Whoever stops us while we attach is heard when somebody listens, so that nothing is left of
        // a cgroup that no other start comes to.
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block()?;
        let status = runtime(config.workers)?.block_on(async {
            let grace = config.drain_timeout;
            // Not confined: the command would be, too.
            let daemon = Captured::new(config, source, &place.pod)?.serve()?;
            let status = supervise(&self.command, &place.app, signals).await;
            daemon.stop(grace).await?;
            status
        })?;
        Ok(exit_code(status))
    }
}

/// Starts the command and waits for it, passing on what we are told.
async fn supervise(
    command: &[OsString],
    cgroup: &Cgroup,
    blocked: SigSet,
) -> anyhow::Result<ExitStatus> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    // A terminal sends its interrupt to the command too; we only have to outlive it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    blocked.thread_unblock()?;
    let mut child = pod::command_in(cgroup, program)
        .and_then(|mut command| command.args(arguments).spawn())
        .with_context(|| format!("cannot run {}", program.display()))?;
    loop {
        tokio::select! {
            status = child.wait() => return status.context("cannot wait for the command"),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot stop the command")?;
                }
            }
        }
    }
}

/// As a shell reports it: 128 and the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Cgroups that go when the command has gone: one for the command, one for us, and the one that
/// holds both and is captured.
struct Place {
    pod: Cgroup,
    app: Cgroup,
    sidecar: Cgroup,
    /// Where we came from.
    home: Cgroup,
}

impl Place {
    /// Makes the cgroups and moves this process into its own.
    fn create(parent: &Path) -> anyhow::Result<Self> {
        let name = format!("sidecar-exec-{}", std::process::id());
        let home = Cgroup::of_this_process()?;
        let pod = Cgroup::create(parent, &name)?;
        let place = Self {
            app: Cgroup::create(pod.path(), "app")?,
            sidecar: Cgroup::create(pod.path(), "sidecar")?,
            pod,
            home,
        };
        place
            .sidecar
            .join()
            .with_context(|| format!("cannot join {}", place.sidecar))?;
        Ok(place)
    }
}

/// Removes a cgroup. Threads that have just ended are in it until the kernel has done with them, and do
/// not move to another.
fn remove(cgroup: &Cgroup) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(10);
    let started = Instant::now();
    loop {
        match cgroup.remove() {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && started.elapsed() < PATIENCE =>
            {
                thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self
            .home
            .join()
            .and_then(|()| remove(&self.sidecar))
            .and_then(|()| remove(&self.app))
            .and_then(|()| remove(&self.pod));
        if let Err(error) = removed {
            tracing::warn!(
                "cannot remove {}: {error}; a process of the command may still run",
                self.pod
            );
        }
    }
}
