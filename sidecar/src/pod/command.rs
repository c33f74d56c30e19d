#![expect(
    unsafe_code,
    reason = "only code between fork and exec can join a cgroup first"
)]

use std::{ffi::OsStr, fs::OpenOptions, io, io::Write};

use tokio::process::Command;

use super::Cgroup;

/// A command that joins the cgroup before it starts.
///
/// The kernel side goes by the cgroup that a socket was made in, so joining later is too late.
pub fn command_in(cgroup: &Cgroup, program: &OsStr) -> io::Result<Command> {
    let mut procs = OpenOptions::new().write(true).open(cgroup.procs())?;
    let mut command = Command::new(program);
    // SAFETY: the closure only writes one byte to an open file, which is safe after `fork`.
    unsafe {
        command.pre_exec(move || procs.write_all(b"0"));
    }
    Ok(command)
}
