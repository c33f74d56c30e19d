#![expect(
    unsafe_code,
    reason = "how the allocator keeps memory is told to it by a function of C"
)]

/// Has every large block go back to the kernel as soon as it is not used any more: for a process of
/// many threads, each of which needs much memory now and then.
///
/// Left alone, the allocator of glibc learns from the first large block that is given back: it serves
/// later ones of that size from the thread's own heap, where what has been used once stays. With a
/// thread for each pod, each would keep as much as the largest of its loads and pages took.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        /// What the allocator begins with, and by being told keeps to.
        const LARGE: libc::c_int = 128 << 10;
        // SAFETY: it takes no pointers, and may be called at any time from any thread.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn a_large_block_is_a_mapping_of_its_own_also_after_one_was_given_back() {
        /// What glibc notes before a block, which begins a page where it is alone.
        const HEADER: usize = 2 * size_of::<usize>();
        return_large_blocks();
        // More than any other test may have left free in a heap, which is looked at first, and less
        // than what glibc never learns from.
        drop(Vec::<u8>::with_capacity(31 << 20));
        let blocks: Vec<Vec<u8>> = (26..=29)
            .map(|size| Vec::with_capacity(size << 20))
            .collect();
        for block in blocks {
            assert_eq!(block.as_ptr().addr() % 4096, HEADER);
        }
    }
}
