//! What carries bytes, between ends that are always ready or wait for each other.

use std::{
    cell::Cell,
    future::{Pending, pending},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::{
    Close, Meter,
    buffer::LENGTH,
    copy::{Leg, copy},
    wire::benchmarks::framed,
};

const REQUEST: &[u8] =
    b"GET /empty HTTP/1.1\r\nHost: 198.18.0.2:8080\r\nUser-Agent: benchmark\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\r\n";

/// Carries so many requests and their responses, one after the other.
pub(crate) fn requests(meter: &mut impl Meter, count: usize) {
    let asked = Cell::new(0);
    let answered = Cell::new(0);
    let mut client = End {
        says: REQUEST,
        said: &asked,
        may_say: &|| {
            (asked.get() == answered.get() && asked.get() < count).then_some(REQUEST.len())
        },
        has_ended: &|| answered.get() == count,
    };
    let mut server = End {
        says: RESPONSE,
        said: &answered,
        may_say: &|| (answered.get() < asked.get()).then_some(RESPONSE.len()),
        has_ended: &|| answered.get() == count,
    };
    carry(&mut client, &mut server, meter);
}

/// Carries so many buffers full from the client to the server.
pub(crate) fn bulk(meter: &mut impl Meter, count: usize) {
    static BYTES: [u8; LENGTH] = [0; LENGTH];
    let said = Cell::new(0);
    let mut client = End {
        says: &BYTES,
        said: &said,
        may_say: &|| (said.get() < count).then_some(LENGTH),
        has_ended: &|| said.get() == count,
    };
    let nothing = Cell::new(0);
    let mut server = End {
        says: &[],
        said: &nothing,
        may_say: &|| None,
        has_ended: &|| said.get() == count,
    };
    carry(&mut client, &mut server, meter);
}

fn carry(client: &mut End<'_>, server: &mut End<'_>, meter: &mut impl Meter) {
    let never: fn() -> Pending<()> = pending;
    let ended = complete(copy(client, server, None, never, never, meter));
    assert_eq!(ended.close, Close::Eof);
}

/// Has so many questions and answers pass over a stream that connections share.
pub(crate) fn frames(count: usize) {
    let (mut client, mut server) = framed(1 << 16);
    complete(async {
        let mut bytes = [0; 1024];
        for _ in 0..count {
            client.write_all(REQUEST).await.expect("there is room");
            let heard = server.read_exact(&mut bytes[..REQUEST.len()]);
            heard.await.expect("it was written");
            server.write_all(RESPONSE).await.expect("there is room");
            let heard = client.read_exact(&mut bytes[..RESPONSE.len()]);
            heard.await.expect("it was written");
        }
    });
}

/// Polls until it is done: whatever it waits for is done by itself.
fn complete<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// An end that says the same again and again, and takes whatever it is told.
struct End<'a> {
    says: &'static [u8],
    /// How often it has.
    said: &'a Cell<usize>,
    /// Whether it may now, and how much.
    may_say: &'a dyn Fn() -> Option<usize>,
    /// Whether it has nothing more to say.
    has_ended: &'a dyn Fn() -> bool,
}

impl Leg for End<'_> {}

impl AsyncRead for End<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match (self.may_say)() {
            // A socket gives what has come, and no more at once than there is room for.
            Some(length) if length <= buf.remaining() => {
                buf.put_slice(&self.says[..length]);
                self.said.set(self.said.get() + 1);
                Poll::Ready(Ok(()))
            }
            None if (self.has_ended)() => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for End<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
