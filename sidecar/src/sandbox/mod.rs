//! What the proxy gives up before it takes the first byte from the network.
//!
//! Attaching to the kernel takes privileges; carrying bytes takes none. So once the pod is
//! captured and every socket is bound, the process confines itself, for good and before it has
//! any other thread: threads inherit what confines the one that starts them. Whoever takes the
//! proxy over then holds its connections and its key, and nothing else of the machine.

mod capabilities;
mod error;
mod files;
mod system_calls;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    panic::resume_unwind,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::sys::prctl;

pub use self::{capabilities::Capabilities, error::Error, files::Landlock};
use crate::{bpf::probe::Release, pod::Cgroup};

/// What a proxy goes on to need of the machine. The rest is refused by the kernel.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// The port of the admin endpoint. No other can be bound, but for those of the kernel's choice.
    pub admin_port: u16,
    /// A file that is appended to, and made again when it was moved away.
    pub appended: Option<PathBuf>,
    /// The pod's cgroup, which is listed to tell whose sockets listen.
    pub cgroup: PathBuf,
    /// The directories whose files are made and replaced: the development CA's.
    pub directories: Vec<PathBuf>,
    /// Files that are read again when they change, or may come to be later. What can be read is
    /// everything in their directories, since a file that is replaced is another one.
    pub files: Vec<PathBuf>,
    /// The directory of the pod's pins, where they are removed at the end.
    pub pins: Option<PathBuf>,
}

/// How a thread is confined.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// What it may do beside what every thread may.
    pub capabilities: Capabilities,
    /// Which files it may open, to which ports it may connect.
    pub landlock: Landlock,
}

impl Sandbox {
    /// Confines the process, for good. There must be no other thread: it would stay as it was.
    pub fn enter(&self) -> Result<(), Error> {
        expect_one_thread()?;
        tell("confined", self.confine_thread()?);
        Ok(())
    }

    /// Finds out, on a thread that ends, whether threads can be confined here, and says how.
    pub fn try_for_lanes(self) -> Result<(), Error> {
        tell("lanes are confined", self.try_on_a_thread()?);
        Ok(())
    }

    /// What every proxy needs, whose pod is this cgroup.
    pub fn of(cgroup: &Cgroup) -> Self {
        Self {
            cgroup: cgroup.path().to_owned(),
            ..Self::default()
        }
    }

    /// Confines a thread that has nothing to do, and tells what the kernel made of it.
    pub fn try_on_a_thread(self) -> Result<Confinement, Error> {
        let trial = thread::spawn(move || self.confine_thread());
        trial.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Confines the calling thread and those it will start, and no other.
    pub fn confine_thread(&self) -> Result<Confinement, Error> {
        prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)?;
        let kernel = Release::of_this_kernel();
        // While the privileges last, as a directory may be closed to whoever has none.
        let landlock = files::restrict(self)?;
        let capabilities = capabilities::drop_all(kernel)?;
        // Without capabilities any process of the same user could otherwise trace this one, or
        // have its core dumped, and read the key.
        prctl::set_dumpable(false).map_err(Error::NotDumpable)?;
        system_calls::filter()?;
        Ok(Confinement {
            capabilities,
            landlock,
        })
    }
}

/// Says what confines from here on.
fn tell(what: &str, confinement: Confinement) {
    let Confinement {
        capabilities,
        landlock,
    } = confinement;
    tracing::info!("{what}: {capabilities}, no new privileges, a list of system calls, {landlock}");
    if capabilities == Capabilities::Bpf {
        tracing::warn!("before Linux 5.19 whoever uses a map needs CAP_BPF, so the proxy keeps it");
    }
    if landlock == Landlock::Missing {
        tracing::warn!(
            "without Landlock, file permissions alone tell which files the proxy may open; \
             boot Linux 5.13 or newer with `landlock` among its security modules (lsm=)"
        );
    }
}

/// Waits until no other thread is left: one that has just been joined may still be listed.
fn expect_one_thread() -> Result<(), Error> {
    const LIMIT: Duration = Duration::from_secs(1);
    let started = Instant::now();
    loop {
        let threads = threads().map_err(Error::Threads)?;
        if threads == 1 {
            return Ok(());
        }
        if started.elapsed() > LIMIT {
            return Err(Error::OtherThreads(threads - 1));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
