//! Memory for bytes on their way, which idle connections do not hold.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::wire::HEADER;

/// How long each is: with a header in front four full TLS records (RFC 8446, section 5.1), so that a
/// system call moves four.
pub(super) const LENGTH: usize = 64 * 1024 - HEADER;

/// How many wait for whoever needs one next; 2 MiB.
const SPARE: usize = 32;

/// The last one that was given back comes first: most of it is still in the processor's cache.
static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// [`LENGTH`] bytes that somebody has used before, and that somebody else will use next.
#[derive(Debug)]
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn take() -> Self {
        let spare = pool().pop();
        Self(spare.unwrap_or_else(|| vec![0; LENGTH].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = pool();
        if pool.len() < SPARE {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

fn pool() -> MutexGuard<'static, Vec<Box<[u8]>>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_come_back_at_once_do_not_stay() {
        let all: Vec<_> = (0..2 * SPARE).map(|_| Buffer::take()).collect();
        assert!(all.iter().all(|buffer| buffer.len() == LENGTH));
        drop(all);
        assert!(pool().len() <= SPARE);
    }
}
