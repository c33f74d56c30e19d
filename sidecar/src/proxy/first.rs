use std::os::fd::AsRawFd as _;

use nix::sys::socket::{MsgFlags, recv};

use super::{buffer::Buffer, tcp::Tcp};

/// The first that an app has said, read before it is known who carries it.
#[derive(Debug)]
pub(super) struct First {
    pub(super) buffer: Buffer,
    pub(super) length: usize,
}

impl First {
    /// What is there already of at most `most` bytes. An end, or a failure, is left to whoever reads on.
    pub(super) fn read(app: &Tcp, most: usize) -> Option<Self> {
        let mut buffer = Buffer::take();
        let most = most.min(buffer.len());
        // Not by the runtime's leave, which has not heard of the socket's readiness yet.
        let read = recv(app.as_raw_fd(), &mut buffer[..most], MsgFlags::MSG_DONTWAIT);
        let length = read.ok().filter(|length| *length > 0)?;
        Some(Self { buffer, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}
