use std::{
    future::ready,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};

/// Who asks, by the connection they ask on.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    address: SocketAddr,
    /// The answer goes on for as long as the caller listens.
    is_lasting: Arc<AtomicBool>,
}

/// A caller inside the pod, who may see who connects from where, and asks for what.
pub(super) struct Local(Caller);

impl Caller {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_lasting: Arc::default(),
        }
    }

    pub(super) fn is_lasting(&self) -> bool {
        self.is_lasting.load(Ordering::Relaxed)
    }
}

impl Local {
    /// The answer takes as long as the caller likes to listen.
    pub(super) fn lasts(&self) {
        self.0.is_lasting.store(true, Ordering::Relaxed);
    }
}

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = (StatusCode, &'static str);

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> {
        let caller = parts.extensions.get::<Caller>();
        ready(match caller {
            Some(caller) if caller.address.ip().to_canonical().is_loopback() => {
                Ok(Self(caller.clone()))
            }
            _ => Err((
                StatusCode::FORBIDDEN,
                "this names addresses and paths: ask from inside the pod, over loopback\n",
            )),
        })
    }
}
