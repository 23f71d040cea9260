//! Rows kept in memory: never older than what was committed, and never more than their bound.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

fn number(entry: Option<Entry>) -> u64 {
    entry.map_or(0, |entry| entry.dot.seq)
}

#[test]
fn a_read_shows_the_last_commit_and_not_what_was_read_before() {
    let directory = directory();
    let mut store = open(&directory);
    let (key, other) = (key(1, b"key"), key(1, b"other"));
    let reader = store.reader();
    let mut replaces = None;
    for seq in 1..50 {
        let dot = origin(1).dot(seq);
        store.put(&key, &inline(&key, dot, b"value"), replaces);
        assert_eq!(number(reader.get(&key).expect("reads")), seq - 1, "nothing is visible before its commit");
        store.commit(false).expect("commits");
        for _ in 0..3 {
            assert_eq!(number(reader.get(&key).expect("reads")), seq);
        }
        assert_eq!(reader.get(&other), Ok(None));
        replaces = Some(dot);
    }
    store.remove(&key, origin(1).dot(49));
    assert_eq!(number(reader.get(&key).expect("reads")), 49);
    store.commit(false).expect("commits");
    assert_eq!(reader.get(&key), Ok(None));
}

/// Readers and a writer at once: what one read has seen, no later one goes back behind, and what was committed before a
/// read began is shown.
#[test]
fn no_reader_goes_back_in_time() {
    const KEYS: u64 = 3;
    const COMMITS: u64 = 3_000;
    let directory = directory();
    let mut store = open(&directory);
    let keys: Vec<Key> = (0..KEYS).map(|name| key(1, &[b'a' + name as u8])).collect();
    let committed: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let reader = store.reader();
                let (keys, committed, is_over) = (&keys, &committed, &is_over);
                scope.spawn(move || {
                    let mut seen = vec![0; keys.len()];
                    let mut reads = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        for (at, key) in keys.iter().enumerate() {
                            let least = committed[at].load(Ordering::Acquire);
                            let shown = number(reader.get(key).expect("reads"));
                            assert!(shown >= least, "{shown} was shown after {least} was committed");
                            assert!(shown >= seen[at], "{shown} was shown after {}", seen[at]);
                            seen[at] = shown;
                            reads += 1;
                        }
                    }
                    reads
                })
            })
            .collect();
        for seq in 1..=COMMITS {
            // Some commits write to one key, some to all.
            let written = if seq % 2 == 0 { 0..keys.len() } else { (seq % KEYS) as usize..(seq % KEYS) as usize + 1 };
            for at in written.clone() {
                let dot = origin(1 + at as u64).dot(seq);
                store.put(&keys[at], &inline(&keys[at], dot, &seq.to_be_bytes()), None);
            }
            store.commit(false).expect("commits");
            for at in written {
                committed[at].store(seq, Ordering::Release);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        assert!(reads > COMMITS, "{reads} reads are too few to have met the writer");
    });
}

#[test]
fn memory_is_bounded_and_long_rows_are_not_kept() {
    let recent = Recent::new();
    let read = |len: usize| move || Ok::<_, ()>(Some(Bytes::from(vec![7; len])));
    for name in 0..200_000_u32 {
        assert!(recent.row(&name.to_be_bytes(), read(400)).is_ok_and(|row| row.is_some()));
    }
    let full = recent.weight();
    assert!(full <= RECENT_BYTES_MAX && full > RECENT_BYTES_MAX / 2, "{full} bytes");
    let recent = Recent::new();
    recent.row(b"long", read(5_000)).expect("reads");
    assert_eq!(recent.weight(), 0);
    let row = recent.row(b"long", || Err("the tables were asked")).expect_err("not kept");
    assert_eq!(row, "the tables were asked");
}

#[test]
fn after_a_commit_that_failed_the_tables_are_asked() {
    let recent = Recent::new();
    let (kept, fresh) = (Bytes::from_static(b"kept"), Bytes::from_static(b"fresh"));
    let row = |found: &Bytes| recent.row(b"key", || Ok::<_, ()>(Some(found.clone())));
    assert_eq!(row(&kept), Ok(Some(kept.clone())));
    assert_eq!(row(&fresh), Ok(Some(kept)), "it is kept");
    // Nobody settles it.
    let _ = recent.disturb([Bytes::from_static(b"key")].iter());
    assert_eq!(row(&fresh), Ok(Some(fresh.clone())));
    assert_eq!(row(&Bytes::new()), Ok(Some(Bytes::new())), "nothing is kept any more");
}
