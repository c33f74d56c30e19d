use spiffe::SpiffeId;

use super::{Identity, Source};
use crate::identity::Error;

/// A source from which one identity is taken and no other.
///
/// A pod must not be served by another's identity, whatever somebody has written into its files.
pub(crate) struct Exactly<S> {
    id: SpiffeId,
    source: S,
}

impl<S> Exactly<S> {
    pub(crate) const fn new(id: SpiffeId, source: S) -> Self {
        Self { id, source }
    }
}

impl<S: Source> Source for Exactly<S> {
    async fn next(&mut self) -> Result<Identity, Error> {
        self.source.next().await?.of(&self.id)
    }
}
