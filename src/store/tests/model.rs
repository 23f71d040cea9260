//! Random operations on the store and on ordered maps side by side.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Default)]
struct Model {
    data: BTreeMap<Key, Entry>,
    seq: BTreeMap<Dot, Key>,
    seen: BTreeMap<Origin, Seen>,
    folded: BTreeMap<Origin, u64>,
    chunks: BTreeMap<(BlobAddress, u32), Bytes>,
    open: BTreeMap<BlobAddress, ()>,
    pending: BTreeMap<Dot, Record>,
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, u64, u8),
    Remove(usize),
    See(u64, u64),
    Fold(u64),
    Unfold(u64),
    Chunk(usize, u32, u8),
    CloseBlob(usize),
    RemoveBlob(usize),
    Pending(u64, u64),
    RemovePending(u64, u64),
    Commit(bool),
    Tidy,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..KEYS, 0..3u64, any::<u8>()).prop_map(|(key, origin, value)| Op::Put(key, origin, value)),
        2 => (0..KEYS).prop_map(Op::Remove),
        2 => (0..3u64, 1..9u64).prop_map(|(origin, last)| Op::See(origin, last)),
        1 => (0..3u64).prop_map(Op::Fold),
        1 => (0..3u64).prop_map(Op::Unfold),
        3 => (0..KEYS, 0..4u32, any::<u8>()).prop_map(|(key, index, byte)| Op::Chunk(key, index, byte)),
        1 => (0..KEYS).prop_map(Op::CloseBlob),
        1 => (0..KEYS).prop_map(Op::RemoveBlob),
        1 => (0..3u64, 1..5u64).prop_map(|(origin, seq)| Op::Pending(origin, seq)),
        1 => (0..3u64, 1..5u64).prop_map(|(origin, seq)| Op::RemovePending(origin, seq)),
        3 => any::<bool>().prop_map(Op::Commit),
        1 => Just(Op::Tidy),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

const KEYS: usize = 6;

fn keys() -> [Key; KEYS] {
    [key(1, b"a"), key(1, b"aa"), key(1, b"b"), key(2, b"a"), key(2, &[0xff; 512]), key(0xff, b"z")]
}

fn blob_of(key: usize) -> BlobAddress {
    BlobAddress::of(&keys()[key], BlobId([key as u8; 16]))
}

/// What the store says, next to what the model says.
fn compare(store: &FjallStore, staged: &Model, committed: &Model) {
    let reader = store.reader();
    for key in &keys() {
        assert_eq!(store.get(key).expect("reads").as_ref(), staged.data.get(key));
        assert_eq!(reader.get(key).expect("reads").as_ref(), committed.data.get(key));
    }
    for namespace in [1, 2, 3, 0xff].map(|byte| NamespaceId([byte; 16])) {
        let all: Vec<_> = staged.data.clone().into_iter().filter(|(key, _)| key.namespace() == namespace).collect();
        assert_eq!(store.scan(namespace, None, 99).expect("reads"), all);
        assert_eq!(store.scan(namespace, None, 1).expect("reads"), all.iter().take(1).cloned().collect::<Vec<_>>());
        if let Some((first, _)) = all.first() {
            assert_eq!(store.scan(namespace, Some(first), 99).expect("reads"), all[1..]);
        }
        let seen = reader.scan(namespace, b"", None, 99).expect("reads");
        let committed = committed.data.clone().into_iter().filter(|(key, _)| key.namespace() == namespace);
        assert_eq!(seen, committed.collect::<Vec<_>>());
    }
    let mut hashes = Vec::new();
    let origins: BTreeSet<Origin> = committed.seq.keys().map(|dot| dot.origin).collect();
    // Also of some that are overwritten.
    assert!(origins.is_subset(&store.origins().expect("reads").into_iter().collect()));
    store.for_each_hash(&mut |key, hash| hashes.push((key.clone(), hash))).expect("reads");
    assert_eq!(hashes, staged.data.iter().map(|(key, entry)| (key.clone(), entry.hash)).collect::<Vec<_>>());

    for key in 0..KEYS {
        let blob = blob_of(key);
        let held: Vec<_> = (0..5).map(|index| staged.chunks.contains_key(&(blob, index))).collect();
        assert_eq!(store.chunks_held(blob, 5), Ok(held));
        for index in 0..5 {
            assert_eq!(store.chunk(blob, index).expect("reads").as_ref(), staged.chunks.get(&(blob, index)));
            assert_eq!(reader.chunk(blob, index).expect("reads").as_ref(), committed.chunks.get(&(blob, index)));
        }
    }
    let snapshot = store.snapshot();
    for number in 0..3 {
        let origin = origin(number);
        assert_eq!(store.folded(origin), Ok(staged.folded.get(&origin).copied()));
        for (first, last, limit) in [(1, u64::MAX, 99), (2, 6, 99), (1, 99, 2), (3, 2, 9)] {
            let all = committed.seq.iter().filter(|(dot, _)| dot.origin == origin && (first..=last).contains(&dot.seq));
            let all: Vec<_> = all.map(|(dot, key)| (dot.seq, key.clone(), committed.data[key].clone())).collect();
            let (mut found, mut next) = (Vec::new(), first);
            while next <= last {
                let some = snapshot.written_by(origin, next, last, limit).expect("reads");
                assert!(some.upto >= next && some.examined <= limit && some.writes.len() <= limit);
                found.extend(some.writes);
                let Some(after) = some.upto.checked_add(1) else { break };
                next = after;
            }
            assert_eq!(found, all);
        }
    }
    assert_eq!(snapshot.folded_origins(), Ok(committed.folded.clone().into_iter().collect()));

    let recovered = store.recover().expect("reads");
    assert!(recovered.versions.iter().eq(committed.seen.iter().map(|(origin, seen)| (*origin, seen))));
    let folded = committed.folded.iter().fold(VersionHash::default(), |sum, (origin, last)| {
        sum.plus(VersionHash::of(*origin, &Seen::prefix_of(*last)))
    });
    assert_eq!(recovered.folded, folded);
    assert_eq!(recovered.open_blobs, committed.open.keys().copied().collect::<Vec<_>>());
    assert_eq!(recovered.pending, committed.pending.values().cloned().collect::<Vec<_>>());
}

fn apply(op: &Op, next_seq: &mut [u64; 3], store: &mut FjallStore, model: &mut Model) {
    match *op {
        Op::Put(at, number, value) => {
            let key = &keys()[at];
            next_seq[number as usize] += 1;
            let entry = match value {
                0..32 => entry(key, origin(number).dot(next_seq[number as usize]), Value::Tombstone),
                _ => inline(key, origin(number).dot(next_seq[number as usize]), &[value]),
            };
            let replaces = model.data.get(key).map(|old| old.dot);
            store.put(key, &entry, replaces);
            if let Some(dot) = replaces {
                model.seq.remove(&dot);
            }
            model.seq.insert(entry.dot, key.clone());
            model.data.insert(key.clone(), entry);
        }
        Op::Remove(at) => {
            if let Some(old) = model.data.remove(&keys()[at]) {
                store.remove(&keys()[at], old.dot);
                model.seq.remove(&old.dot);
            }
        }
        Op::See(number, last) => {
            let mut seen = Seen::prefix_of(last);
            seen.insert(last + 2);
            store.set_seen(origin(number), &seen);
            model.seen.insert(origin(number), seen);
        }
        Op::Fold(number) => {
            let last = next_seq[number as usize];
            store.fold(origin(number), last);
            model.seen.remove(&origin(number));
            model.folded.insert(origin(number), last);
        }
        Op::Unfold(number) => {
            store.unfold(origin(number));
            if let Some(last) = model.folded.remove(&origin(number)) {
                model.seen.insert(origin(number), Seen::prefix_of(last));
            }
        }
        Op::Chunk(at, index, byte) => {
            let chunk = Bytes::from(vec![byte; 2000]);
            store.open_blob(blob_of(at));
            store.put_chunk(blob_of(at), index, chunk.clone());
            model.open.insert(blob_of(at), ());
            model.chunks.insert((blob_of(at), index), chunk);
        }
        Op::CloseBlob(at) => {
            store.close_blob(blob_of(at));
            model.open.remove(&blob_of(at));
        }
        Op::RemoveBlob(at) => {
            store.remove_blob(blob_of(at)).expect("reads");
            model.open.remove(&blob_of(at));
            model.chunks.retain(|(blob, _), _| *blob != blob_of(at));
        }
        Op::Pending(number, seq) => {
            let (dot, key) = (origin(number).dot(seq), &keys()[0]);
            let record = inline(key, dot, b"pending").to_record(key);
            store.put_pending(dot, &record);
            model.pending.insert(dot, record);
        }
        Op::RemovePending(number, seq) => {
            store.remove_pending(origin(number).dot(seq));
            model.pending.remove(&origin(number).dot(seq));
        }
        Op::Commit(_) | Op::Tidy | Op::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_ordered_maps_do(ops in ops()) {
        let directory = directory();
        let mut store = open(&directory);
        let (mut staged, mut committed) = (Model::default(), Model::default());
        let mut next_seq = [0; 3];
        for op in &ops {
            match op {
                Op::Commit(sync) => {
                    store.commit(*sync).expect("commits");
                    committed = staged.clone();
                }
                Op::Tidy => {
                    tidy_all(&store.tables);
                    let told = told(&store);
                    let held: BTreeSet<_> = committed.seq.keys().copied().collect();
                    prop_assert!(held.is_subset(&told));
                    // Of each block less than half.
                    prop_assert!(told.len() <= 2 * held.len());
                    if held.is_empty() {
                        prop_assert_eq!(store.tables.seq.iter().count(), 0);
                    }
                }
                Op::Reopen => {
                    drop(store);
                    store = open(&directory);
                    staged = committed.clone();
                }
                op => apply(op, &mut next_seq, &mut store, &mut staged),
            }
            compare(&store, &staged, &committed);
        }
    }
}
