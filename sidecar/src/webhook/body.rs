use std::sync::Arc;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::StatusCode,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest review, in bytes: a server takes requests of at most 3 MiB (what etcd stores is half of
/// that), and a review holds the object as it is to be and as it was, and who asks.
pub(super) const LONGEST: usize = 2 * (3 << 20) + (64 << 10);
/// The longest body that waits for no turn, in bytes. Hardly a pod is longer.
pub(super) const SHORT: u64 = 64 << 10;
/// Longer bodies that are in memory at once.
pub(super) const LONG_AT_ONCE: usize = 2;

/// What is not read.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    /// Longer than a review.
    #[error(
        "a review has at most {LONGEST} bytes, and this body is longer; post nothing but a review"
    )]
    Long,
    /// It broke off.
    #[error("the body broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Long => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Turns of long bodies.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

/// A body, and the turn that ends with it.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LONG_AT_ONCE)))
    }

    /// Reads a body, a long one when its turn has come. Before that, no more of it is in memory than a
    /// connection buffers.
    pub(super) async fn read(&self, body: Body) -> Result<Read, BodyError> {
        let size = body.size_hint();
        if usize::try_from(size.lower()).is_ok_and(|least| least > LONGEST) {
            return Err(BodyError::Long);
        }
        let turn = match size.upper() {
            Some(most) if most <= SHORT => None,
            // Nobody closes it.
            _ => Arc::clone(&self.0).acquire_owned().await.ok(),
        };
        let collected = Limited::new(body, LONGEST).collect().await;
        let collected = collected.map_err(|error| {
            if error.is::<LengthLimitError>() {
                BodyError::Long
            } else {
                BodyError::Broken(error)
            }
        })?;
        Ok(Read {
            bytes: collected.to_bytes(),
            _turn: turn,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        task::{Context, Poll},
    };

    use axum::body::HttpBody;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, SizeHint};
    use tokio_stream::StreamExt as _;

    use super::*;

    /// A body of a length that is told, of which nothing ever comes.
    struct Stuck {
        length: u64,
        is_read: Arc<AtomicBool>,
    }

    impl HttpBody for Stuck {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.is_read.store(true, SeqCst);
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    /// Whether somebody has begun to read a body of this length behind others.
    async fn is_read(turns: &Turns, length: u64) -> bool {
        let is_read = Arc::new(AtomicBool::new(false));
        let body = Body::new(Stuck {
            length,
            is_read: Arc::clone(&is_read),
        });
        let turns = turns.clone();
        tokio::spawn(async move { turns.read(body).await.map(drop) });
        tokio::task::yield_now().await;
        is_read.load(SeqCst)
    }

    #[tokio::test]
    async fn no_more_long_bodies_are_read_at_once_than_have_a_turn() {
        let turns = Turns::new();
        for _ in 0..LONG_AT_ONCE {
            assert!(is_read(&turns, SHORT + 1).await);
        }
        assert!(!is_read(&turns, SHORT + 1).await);
        assert!(is_read(&turns, SHORT).await);
    }

    #[tokio::test]
    async fn a_turn_ends_with_the_body() {
        let turns = Turns::new();
        for _ in 0..=LONG_AT_ONCE {
            let long = Body::from(vec![b' '; LONGEST]);
            let read = turns.read(long).await.expect("no longer than a review");
            assert_eq!(read.bytes.len(), LONGEST);
            assert_eq!(turns.0.available_permits(), LONG_AT_ONCE - 1);
        }
    }

    #[tokio::test]
    async fn a_body_of_a_length_that_is_not_told_is_read_no_further_than_a_review_goes() {
        const CHUNK: &[u8] = &[b' '; 1 << 16];
        const CHUNKS: usize = LONGEST / CHUNK.len();
        for (chunks, is_read) in [(CHUNKS, true), (CHUNKS + 1, false)] {
            let chunks = tokio_stream::iter(0..chunks);
            let frames =
                chunks.map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(CHUNK))));
            let read = Turns::new().read(Body::new(StreamBody::new(frames))).await;
            match read {
                Ok(read) => assert!(is_read && read.bytes.len() == LONGEST),
                Err(error) => assert!(!is_read && matches!(error, BodyError::Long), "{error}"),
            }
        }
    }
}
