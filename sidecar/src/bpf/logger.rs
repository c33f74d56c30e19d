#![expect(unsafe_code, reason = "polling a descriptor of somebody else")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use super::Datapath;

/// Global of the kernel side that holds the most verbose level it reports.
pub(super) const LEVEL: &str = aya_log::LEVEL;

/// Begins to forward what the kernel side says to the daemon's log. Call it inside a runtime.
///
/// Best effort: everything else works without it, so a failure is a warning. Programs that somebody
/// else has loaded say nothing to us.
pub fn forward_logs(datapath: &mut Datapath) {
    let Some(programs) = datapath.programs() else {
        return;
    };
    match reader(programs.ebpf()) {
        Ok(logger) => drop(tokio::spawn(forward(logger))),
        Err(error) => tracing::warn!("messages of the kernel side will be missing: {error}"),
    }
}

fn reader(ebpf: &mut Ebpf) -> io::Result<AsyncFd<Reader>> {
    let logger = EbpfLogger::init(ebpf).map_err(io::Error::other)?;
    // SAFETY: the ring buffer owns its descriptor and keeps it until it is dropped.
    unsafe { AsyncFd::register_with_interest(Reader(logger), Interest::READABLE) }
        .map_err(io::Error::from)
}

async fn forward(mut logger: AsyncFd<Reader>) {
    loop {
        match logger.readable_mut().await {
            Ok(mut ready) => {
                ready.get_inner_mut().0.flush();
                ready.clear_ready();
            }
            Err(error) => {
                tracing::warn!("messages of the kernel side will be missing: {error}");
                return;
            }
        }
    }
}

/// The ring buffer with the messages.
struct Reader(EbpfLogger<&'static dyn log::Log>);

impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
