//! Where the program's memory comes from: small blocks from mimalloc, large ones from the system.
//!
//! A request makes some dozens of small blocks, and many are freed by another thread than the one that made them, which costs the
//! system's allocator a lock each. mimalloc does that cheaply, but keeps what others have freed until the thread that
//! made it comes by again. For a few hundred bytes that is nothing; for the pieces of large values, read by threads that
//! then sleep, it is hundreds of megabytes. The system's allocator gives those back. Huge pages are not asked for: they are
//! resident from the first byte on.

#![allow(unsafe_code, reason = "what a global allocator is made of; every call is passed on as it came")]

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Longest block that counts as small, in bytes.
const SMALL_LEN_MAX: usize = 16 * 1024;

/// For `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct BySize;

const fn is_small(len: usize) -> bool {
    len <= SMALL_LEN_MAX
}

// SAFETY: which of the two allocators a block belongs to follows from its length, which the caller must tell as it was.
// Each keeps what the trait asks for.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            match is_small(layout.size()) {
                true => MiMalloc.alloc(layout),
                false => System.alloc(layout),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            match is_small(layout.size()) {
                true => MiMalloc.alloc_zeroed(layout),
                false => System.alloc_zeroed(layout),
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe {
            match is_small(layout.size()) {
                true => MiMalloc.dealloc(block, layout),
                false => System.dealloc(block, layout),
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller's. A block that changes sides is copied as far as both reach, and freed where it came from.
        unsafe {
            match (is_small(layout.size()), is_small(len)) {
                (true, true) => MiMalloc.realloc(block, layout, len),
                (false, false) => System.realloc(block, layout, len),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(len, layout.align()));
                    if !moved.is_null() {
                        block.copy_to_nonoverlapping(moved, layout.size().min(len));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_block_holds_survives_every_change_of_its_length() {
        let lengths = [1, 100, SMALL_LEN_MAX, SMALL_LEN_MAX + 1, 1 << 20, SMALL_LEN_MAX + 1, SMALL_LEN_MAX, 7, 1 << 21];
        for align in [1, 8, 64, 4096] {
            let mut layout = Layout::from_size_align(3, align).expect("a layout");
            // SAFETY: each block is used within its length, and freed with the layout it has.
            unsafe {
                let mut block = BySize.alloc_zeroed(layout);
                assert_eq!(std::slice::from_raw_parts(block, 3), [0; 3]);
                let mut filled = 0;
                for (round, len) in lengths.into_iter().enumerate() {
                    block = BySize.realloc(block, layout, len);
                    layout = Layout::from_size_align(len, align).expect("a layout");
                    assert_eq!(block as usize % align, 0);
                    let bytes = std::slice::from_raw_parts_mut(block, len);
                    let kept: usize = filled.min(len);
                    assert!(bytes[..kept].iter().all(|byte| *byte == round as u8), "{len} bytes at {align}");
                    bytes.fill(round as u8 + 1);
                    filled = len;
                }
                BySize.dealloc(block, layout);
            }
        }
    }
}
