//! Writes of a former node that come back, told one by one in a calm world.

use super::stories::{calm, settle};
use super::*;

/// What the former node wrote, at some time before now.
fn marker(world: &World, ago_ms: u64) -> Marker {
    let origin = Origin { node: NodeId(99), incarnation: Incarnation(1) };
    Marker { time: Timestamp::from_ms(world.at(0).wall_ms - ago_ms), origin }
}

fn reissue(world: &mut World, process: usize, key: &Key, content: &Content, marker: Marker) -> Reply {
    let request = Request::Reissue { key: key.clone(), content: content.clone(), marker };
    let ticket = world.request(process, request);
    world.replies[&ticket].clone()
}

fn entry(world: &World, process: usize, key: &Key) -> Entry {
    let replica = world.processes[process].replica.as_ref().expect("it runs");
    replica.store().get(key).expect("memory does not fail").expect("an entry")
}

fn conflicts(world: &World) -> u64 {
    world.alarms.iter().filter(|(alarm, _)| alarm.contains("MarkerConflict")).map(|(_, count)| count).sum()
}

#[test]
fn it_wins_and_loses_as_if_it_had_come_late() {
    let mut world = calm(3);
    let (before, after) = (marker(&world, 60_000), marker(&world, 0));
    world.run_until(world.now + Mono::from_ms(10));
    world.write(1, user_key(1), inline(b"later"));
    world.write(1, user_key(2), Content { value: Value::Tombstone, ..inline(b"") });
    settle(&mut world);
    for key in [1, 2] {
        for marker in [before, after] {
            let reply = reissue(&mut world, 0, &user_key(key), &inline(b"former"), marker);
            assert!(matches!(reply, Reply::Dominated), "{reply:?}");
        }
    }
    let reply = reissue(&mut world, 0, &user_key(3), &inline(b"former"), before);
    assert!(matches!(reply, Reply::Written { dot, marker, .. } if marker == before && dot.origin.node == NodeId(1)));
    assert!(matches!(reissue(&mut world, 0, &user_key(3), &inline(b"former"), before), Reply::Dominated), "once");
    settle(&mut world);
    for process in 0..3 {
        let held = entry(&world, process, &user_key(3));
        assert_eq!((held.marker(), held.content()), (before, &inline(b"former")));
        assert_eq!(entry(&world, process, &user_key(1)).content(), &inline(b"later"));
    }
    let deleted = Key::new(NamespaceId::DELETED, &user_key(3).namespace().0).expect("a short key");
    world.write(1, deleted, inline(&[0]));
    settle(&mut world);
    let reply = reissue(&mut world, 0, &user_key(4), &inline(b"former"), after);
    assert!(matches!(reply, Reply::Refused(Refusal::NamespaceDeleted)), "{reply:?}");
}

#[test]
fn nothing_is_issued_before_this_process_has_had_what_another_has() {
    let mut world = calm(2);
    let before = marker(&world, 60_000);
    world.crash(0);
    world.restart(0);
    let reply = reissue(&mut world, 0, &user_key(1), &inline(b"former"), before);
    assert!(matches!(reply, Reply::Refused(Refusal::Behind)), "{reply:?}");
    assert_eq!(Step::after(&reply), Step::Later);
    settle(&mut world);
    let reply = reissue(&mut world, 0, &user_key(1), &inline(b"former"), before);
    assert_eq!(Step::after(&reply), Step::Settled(Fate::Reissued));
}

#[test]
fn two_dots_of_one_large_value_become_one_and_no_one_is_accused() {
    let mut world = calm(3);
    let (before, key, id) = (marker(&world, 60_000), user_key(1), BlobId([5; 16]));
    let chunks = [Bytes::from_static(b"first"), Bytes::from_static(b"second")];
    let hashes = chunks.iter().map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    let content = Content { value: Value::Blob(Blob { id, len: 300_000, chunks: hashes }), ..inline(b"") };
    for process in [0, 1] {
        let reply = reissue(&mut world, process, &key, &content, before);
        assert_eq!(Step::after(&reply), Step::Chunks);
        for (index, chunk) in (0..).zip(&chunks) {
            let request = Request::PutChunk { key: key.clone(), id, index, chunk: chunk.clone() };
            world.request(process, request);
        }
    }
    // Neither has heard of the other's.
    for process in [0, 1] {
        let reply = reissue(&mut world, process, &key, &content, before);
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    }
    settle(&mut world);
    let first = entry(&world, 0, &key);
    for process in 0..3 {
        assert_eq!(entry(&world, process, &key), first);
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        assert!(replica.store().image().holds_blob(BlobAddress::of(&key, id), 2));
        assert_eq!(replica.waiting_for_blobs().count(), 0);
    }
    assert_eq!(conflicts(&world), 0);
    // Nor is what is in use taken away by a start, whatever was put there again.
    world.request(0, Request::PutChunk { key: key.clone(), id, index: 0, chunk: chunks[0].clone() });
    world.crash(0);
    world.restart(0);
    let replica = world.processes[0].replica.as_ref().expect("it runs");
    assert!(replica.store().image().holds_blob(BlobAddress::of(&key, id), 2));
}

#[test]
fn what_had_expired_comes_back_without_its_bytes_and_hides_what_it_had_overwritten() {
    let mut world = calm(2);
    let (long_ago, before, key) = (marker(&world, 100_000), marker(&world, 90_000), user_key(1));
    reissue(&mut world, 0, &key, &inline(b"overwritten"), long_ago);
    let content = Content { expire_ms: before.time.ms() + 1_000, ..inline(b"short-lived") };
    assert_eq!(Step::after(&reissue(&mut world, 0, &key, &content, before)), Step::Settled(Fate::Reissued));
    // Somebody had the write itself, and has dropped the bytes.
    let dropped = Content { value: Value::Dropped(RecordHash([7; 16])), ..content.clone() };
    assert_eq!(Step::after(&reissue(&mut world, 1, &key, &dropped, before)), Step::Settled(Fate::Reissued));
    settle(&mut world);
    for process in [0, 1] {
        let held = entry(&world, process, &key);
        assert_eq!((held.marker(), held.content().expire_ms), (before, content.expire_ms));
        assert!(!held.is_visible(world.at(process).wall_ms));
    }
    assert_eq!(entry(&world, 0, &key), entry(&world, 1, &key));
    assert_eq!(conflicts(&world), 0);
}

#[test]
fn only_what_the_node_wrote_itself_and_not_of_the_cluster_is_its_own() {
    let mut world = calm(2);
    world.write(0, user_key(1), inline(b"its own"));
    world.write(1, user_key(2), inline(b"another's"));
    settle(&mut world);
    let store = MemStore::restored(world.processes[0].replica.as_ref().expect("it runs").store().image().clone());
    let own = own_writes(&store, NodeId(1), None, 1_000).expect("memory does not fail");
    let keys: Vec<&Key> = own.writes.iter().map(|(key, _)| key).collect();
    assert_eq!((keys, own.damaged, own.after), (vec![&user_key(1)], 0, None));
    let mut rotten = store.clone();
    let mut entry = entry(&world, 0, &user_key(1));
    entry.register.val = inline(b"rotten");
    rotten.tamper(|rows| rows.set(&user_key(1), Some(entry.clone())));
    let own = own_writes(&rotten, NodeId(1), None, 1_000).expect("memory does not fail");
    assert_eq!((own.writes.len(), own.damaged), (0, 1));
    // In pages, too.
    let (mut after, mut count) = (None, 0);
    loop {
        let page = own_writes(&store, NodeId(1), after.as_ref(), 1).expect("memory does not fail");
        count += page.writes.len();
        let Some(reached) = page.after else { break };
        after = Some(reached);
    }
    assert_eq!(count, 1);
}
