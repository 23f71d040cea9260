//! The store against a model, across restarts, and when things go wrong.
mod damage;
mod model;
mod recent;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::recent::{RECENT_BYTES_MAX, Recent};
use super::tidy::{tidy_all, tidy_told};
use super::*;
use crate::replica::{BlobId, Content, Incarnation, Marker, NodeId, Snapshot, Value};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(directory: &TempDir) -> FjallStore {
    FjallStore::open(directory.path()).expect("the store opens")
}

fn origin(number: u64) -> Origin {
    Origin { node: NodeId(number), incarnation: Incarnation(7) }
}

fn key(namespace: u8, name: &[u8]) -> Key {
    Key::new(NamespaceId([namespace; 16]), name).expect("a valid key")
}

fn entry(key: &Key, dot: Dot, value: Value) -> Entry {
    let stamp = Timestamp::from_ms(dot.seq);
    let content = Content { expire_ms: 0, metadata: Bytes::new(), value };
    Entry::new(key, dot, stamp, Marker { time: stamp, origin: dot.origin }, content)
}

fn inline(key: &Key, dot: Dot, value: &[u8]) -> Entry {
    entry(key, dot, Value::Inline(Bytes::copy_from_slice(value)))
}

fn written_by(view: &View, origin: Origin, first: u64, last: u64) -> Vec<(u64, Key, Entry)> {
    let found = view.written_by(origin, first, last, usize::MAX).expect("reads");
    assert_eq!(found.upto, last);
    found.writes
}

/// What the index tells of.
fn told(store: &FjallStore) -> BTreeSet<Dot> {
    let rows = store.tables.seq.iter().map(|row| row.into_inner().expect("reads"));
    rows.flat_map(|(row, value)| index::decode(&row, &value.into()).expect("readable")).map(|(dot, _)| dot).collect()
}

#[test]
fn everything_committed_is_found_after_a_restart() {
    let directory = directory();
    let (a, b) = (key(1, b"a"), key(1, b"b"));
    let blob = BlobAddress::of(&a, BlobId([3; 16]));
    let dot = origin(1).dot(1);
    let record = inline(&b, origin(2).dot(9), b"waits").to_record(&b);
    let mut seen = Seen::prefix_of(5);
    seen.insert(8);
    {
        let mut store = open(&directory);
        store.put(&a, &inline(&a, dot, b"one"), None);
        store.set_seen(origin(1), &seen);
        store.set_seen(origin(3), &Seen::prefix_of(4));
        store.fold(origin(3), 4);
        store.set_clock(Timestamp::from_ms(99));
        store.open_blob(blob);
        store.put_chunk(blob, 0, Bytes::from_static(b"chunk"));
        store.put_pending(origin(2).dot(9), &record);
        assert_eq!(store.commit(true), Ok(1));
        store.put(&b, &inline(&b, origin(1).dot(2), b"staged only"), None);
    }
    let mut store = open(&directory);
    let recovered = store.recover().expect("reads");
    assert_eq!(recovered.versions.iter().collect::<Vec<_>>(), [(origin(1), &seen)]);
    assert_eq!(recovered.folded, VersionHash::of(origin(3), &Seen::prefix_of(4)));
    assert_eq!(recovered.clock_floor, Timestamp::from_ms(99));
    assert_eq!(recovered.open_blobs, [blob]);
    assert_eq!(recovered.pending, [record]);
    assert_eq!(store.get(&a), Ok(Some(inline(&a, dot, b"one"))));
    assert_eq!(store.get(&b), Ok(None));
    assert_eq!(store.chunk(blob, 0), Ok(Some(Bytes::from_static(b"chunk"))));
    assert_eq!(store.snapshot().folded_origins(), Ok(vec![(origin(3), 4)]));

    store.unfold(origin(3));
    store.remove_pending(origin(2).dot(9));
    store.remove_blob(blob).expect("reads");
    store.commit(false).expect("commits");
    drop(store);
    let store = open(&directory);
    let recovered = store.recover().expect("reads");
    assert_eq!(recovered.versions.get(origin(3)), Some(&Seen::prefix_of(4)));
    assert_eq!(recovered.folded, VersionHash::default());
    assert!(recovered.pending.is_empty() && recovered.open_blobs.is_empty());
    assert_eq!(store.chunk(blob, 0), Ok(None));
}

#[test]
fn views_stand_still_while_readers_move_on() {
    let directory = directory();
    let mut store = open(&directory);
    let reader = store.reader();
    let a = key(1, b"a");
    let blob = BlobAddress::of(&a, BlobId([3; 16]));
    let (first, second) = (inline(&a, origin(1).dot(1), b"1"), inline(&a, origin(1).dot(2), b"2"));
    store.put_chunk(blob, 0, Bytes::from_static(b"chunk"));
    store.put(&a, &first, None);
    assert_eq!(reader.get(&a), Ok(None), "staged is for the store alone");
    store.commit(false).expect("commits");
    let (view, snapshot) = (reader.view(), store.snapshot());
    store.put(&a, &second, Some(first.dot));
    store.remove_blob(blob).expect("reads");
    assert_eq!(store.get(&a), Ok(Some(second.clone())));
    assert_eq!(reader.get(&a), Ok(Some(first.clone())));
    store.commit(false).expect("commits");
    assert_eq!(reader.get(&a), Ok(Some(second)));
    assert_eq!(reader.chunk(blob, 0), Ok(None));
    assert_eq!(view.get(&a), Ok(Some(first.clone())));
    assert_eq!(view.chunk(blob, 0), Ok(Some(Bytes::from_static(b"chunk"))));
    assert_eq!(written_by(&snapshot, origin(1), 1, 9), [(1, a.clone(), first)]);
}

#[test]
fn readers_scan_by_prefix_within_a_namespace() {
    let directory = directory();
    let mut store = open(&directory);
    let names: [&[u8]; 5] = [b"a", b"b", b"b\xff", b"bc", b"c"];
    for (seq, name) in (1..).zip(names) {
        store.put(&key(0xff, name), &inline(&key(0xff, name), origin(1).dot(seq), name), None);
        store.put(&key(1, name), &inline(&key(1, name), origin(2).dot(seq), name), None);
    }
    store.commit(false).expect("commits");
    let scan = |namespace: u8, prefix: &[u8], after: Option<&[u8]>, limit| -> Vec<Bytes> {
        let found = store.reader().scan(NamespaceId([namespace; 16]), prefix, after, limit).expect("reads");
        found.into_iter().map(|(key, _)| key.name()).collect()
    };
    assert_eq!(scan(1, b"", None, 9), [&b"a"[..], b"b", b"bc", b"b\xff", b"c"]);
    assert_eq!(scan(0xff, b"", None, 2), [&b"a"[..], b"b"]);
    assert_eq!(scan(0xff, b"b", None, 9), [&b"b"[..], b"bc", b"b\xff"]);
    assert_eq!(scan(1, b"b", Some(b"b"), 9), [&b"bc"[..], b"b\xff"]);
    assert_eq!(scan(1, b"b", Some(b"a"), 9).len(), 3);
    assert!(scan(1, b"b", Some(b"c"), 9).is_empty(), "a cursor beyond the prefix");
    assert!(scan(1, b"", None, 0).is_empty());
    assert!(scan(2, b"", None, 9).is_empty());
}

#[test]
fn a_hot_key_leaves_one_row_of_the_index() {
    let directory = directory();
    let mut store = open(&directory);
    let a = key(1, b"a");
    for seq in 1..=100 {
        let replaces = (seq > 1).then(|| origin(1).dot(seq - 1));
        store.put(&a, &inline(&a, origin(1).dot(seq), b"x"), replaces);
    }
    assert_eq!(store.staged.outlived, [], "nobody need look for what was never indexed");
    let (batch, _) = std::mem::take(&mut store.staged).into_batch(&store.tables);
    assert_eq!(batch.len(), 2, "one row of the index and one entry");
}

#[test]
fn an_entry_put_again_under_its_dot_is_replaced_cleanly() {
    let directory = directory();
    let mut store = open(&directory);
    let a = key(1, b"a");
    let first = inline(&a, origin(1).dot(1), b"x");
    store.put(&a, &first, None);
    store.commit(false).expect("commits");
    store.put(&a, &first.dropped(), Some(first.dot));
    store.put(&a, &inline(&a, origin(1).dot(2), b"y"), Some(first.dot));
    assert_eq!(store.staged.outlived, [first.dot]);
    store.commit(false).expect("commits");
    tidy_all(&store.tables);
    assert_eq!(told(&store), BTreeSet::from([origin(1).dot(2)]), "nothing tells of the first dot");
}

#[test]
fn the_index_of_an_earlier_release_is_read_and_tidied() {
    let directory = directory();
    let a = key(1, b"a");
    let (first, second) = (inline(&a, origin(1).dot(1), b"x"), inline(&a, origin(1).dot(2), b"y"));
    {
        let mut store = open(&directory);
        store.put(&a, &second, None);
        store.commit(false).expect("commits");
        store.tables.seq.iter().for_each(|row| store.tables.seq.remove(row.key().expect("reads")).expect("removed"));
        for dot in [first.dot, second.dot] {
            store.tables.seq.insert(rows::dot_key(dot), a.as_bytes().clone()).expect("written");
        }
        store.tables.meta.insert(Tag::Format.key(b""), rows::encode_meta(&1_u32)).expect("written");
    }
    let mut store = open(&directory);
    let format = store.tables.meta.get(Tag::Format.key(b"")).expect("reads").expect("is there");
    assert_eq!(rows::decode_meta(&format), Ok(2_u32), "an earlier release leaves it alone from now on");
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, 9), [(2, a.clone(), second.clone())]);
    assert_eq!(told(&store).len(), 2);
    tidy_all(&store.tables);
    assert_eq!(told(&store), BTreeSet::from([second.dot]));
    store.put(&a, &inline(&a, origin(1).dot(3), b"z"), Some(second.dot));
    store.commit(false).expect("commits");
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, 9).len(), 1);
    tidy_all(&store.tables);
    assert_eq!(told(&store), BTreeSet::from([origin(1).dot(3)]));
}

#[test]
fn what_was_overwritten_before_a_restart_leaves_the_index_however_much_is_overwritten_after_it() {
    let directory = directory();
    let a = key(1, b"a");
    let (first, second) = (inline(&a, origin(1).dot(1), b"x"), inline(&a, origin(1).dot(2), b"y"));
    {
        let mut store = open(&directory);
        store.put(&a, &first, None);
        store.commit(false).expect("commits");
        store.put(&a, &second, Some(first.dot));
        store.commit(false).expect("commits");
    }
    let mut store = open(&directory);
    assert_eq!(told(&store).len(), 2);
    let mut looks = 0;
    while told(&store).len() > 1 {
        assert!(looks < 100, "it has never come by");
        looks += 1;
        store.tidying.outlived(vec![origin(2).dot(1); 4096]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(told(&store), BTreeSet::from([second.dot]));
}

/// However long it goes on: what was tidied away is no reason to come by later.
#[test]
fn the_index_of_keys_that_are_overwritten_again_and_again_stays_small() {
    let directory = directory();
    let mut store = open(&directory);
    let keys: Vec<_> = (0..300_u32).map(|number| key(1, &number.to_be_bytes())).collect();
    let count = keys.len() as u64;
    let tables = store.tables.clone();
    let mut overwritten = Vec::new();
    for round in 0..9 {
        for (key, seq) in keys.iter().zip(1 + round * count..) {
            let replaces = (round > 0).then(|| origin(1).dot(seq - count));
            store.put(key, &inline(key, origin(1).dot(seq), b"x"), replaces);
            overwritten.extend(replaces);
        }
        store.commit(false).expect("commits");
    }
    let until_next = tidy_told(&tables, overwritten.chunks(keys.len()).map(<[Dot]>::to_vec));
    assert!(until_next.iter().all(|held| *held <= keys.len()), "{until_next:?}");
    assert!(told(&store).len() <= 2 * keys.len());
}

/// As many as it takes for the thread to come by.
#[test]
fn what_is_overwritten_often_enough_leaves_the_index_by_itself() {
    let directory = directory();
    let mut store = open(&directory);
    let keys: Vec<_> = (0..1000_u32).map(|number| key(1, &number.to_be_bytes())).collect();
    let mut seq = 0;
    for round in 0..400 {
        for key in &keys {
            seq += 1;
            let replaces = (round > 0).then(|| origin(1).dot(seq - keys.len() as u64));
            store.put(key, &inline(key, origin(1).dot(seq), b"x"), replaces);
        }
        store.commit(false).expect("commits");
    }
    let is_tidy = || told(&store).len() <= 200_000;
    let looks = (0..1000).take_while(|_| !is_tidy()).inspect(|_| std::thread::sleep(Duration::from_millis(50)));
    assert!(looks.count() < 1000, "{} of {seq} are told of", told(&store).len());
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, u64::MAX).len(), keys.len());
}

#[test]
fn disk_use_is_told_without_what_is_only_laid_out() {
    let directory = directory();
    let store = open(&directory);
    let bytes = store.reader().disk_bytes();
    assert!(bytes > 0 && bytes < 8 * 1024 * 1024, "{bytes}");
}

#[test]
fn what_is_scheduled_is_found_in_order_of_time_also_after_a_restart() {
    let directory = directory();
    let (a, b, c) = (key(1, b"a"), key(1, b"b"), key(2, b"c"));
    {
        let mut store = open(&directory);
        for (key, at_ms) in [(&a, 300), (&b, 200), (&c, 100), (&a, 50)] {
            store.schedule(key, at_ms);
        }
        store.unschedule(&a, 50);
        store.commit(true).expect("commits");
        store.unschedule(&b, 200);
        store.schedule(&b, 250);
        store.commit(true).expect("commits");
    }
    let store = open(&directory);
    let scheduled = |from_ms, before_ms, limit| store.scheduled(from_ms, before_ms, limit).expect("reads");
    assert_eq!(scheduled(0, 300, 9), [(100, c.clone()), (250, b.clone())]);
    assert_eq!(scheduled(101, 301, 9), [(250, b), (300, a)]);
    assert_eq!(scheduled(0, 301, 1), [(100, c)]);
    assert_eq!(scheduled(300, 300, 9), []);
    assert_eq!(scheduled(301, 300, 9), []);
}
