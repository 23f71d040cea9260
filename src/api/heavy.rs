//! Work that grows with a body: done off the event loop where it is more than a moment, so that nobody else waits for it.

use super::error::RequestError;

/// Bytes of JSON that are read or written about as fast as a thread is changed for it.
const MOMENT_LEN: usize = 16 * 1024;

/// Items between two offers of the processor.
const ITEMS_A_TURN: usize = 64;

/// Does what there is to do for `len` bytes.
pub(crate) async fn work<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> Result<T, RequestError> + Send + 'static,
) -> Result<T, RequestError> {
    match len <= MOMENT_LEN {
        true => work(),
        false => tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| RequestError::Internal("working on a large body panicked"))?,
    }
}

/// To be called with each item's index: now and then others have the processor. Where cores are few, whoever has a
/// small request would wait for the rest of the scheduler's slice, milliseconds.
pub(crate) fn give_way(index: usize) {
    if index % ITEMS_A_TURN == ITEMS_A_TURN - 1 {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn a_moment_is_no_reason_to_change_threads() {
        let here = current().id();
        let small = work(MOMENT_LEN, || Ok(current().id())).await.expect("done");
        let large = work(MOMENT_LEN + 1, || Ok(current().id())).await.expect("done");
        assert!(small == here && large != here);
        let failed = work(MOMENT_LEN + 1, || Err::<(), _>(RequestError::BulkGetTooLarge)).await;
        assert!(matches!(failed, Err(RequestError::BulkGetTooLarge)));
    }
}
