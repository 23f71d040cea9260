//! Secrets that members share, and how what is damaged is found and mended.

use super::stories::{calm, counter, settle};
use super::*;
use crate::replica::limits::*;

fn secret(owner: NamespaceId, number: u64, rank: u64) -> SharedSecret {
    SharedSecret { owner, number, rank, bytes: SecretBytes(number.to_be_bytes().repeat(4)) }
}

#[test]
fn secrets_reach_everyone_and_whoever_was_away() {
    let mut world = calm(3);
    world.crash(2);
    let own = NamespaceId([7; 16]);
    world.request(0, Request::ShareSecret(secret(own, 1, 10)));
    assert_eq!(world.processes[0].secrets.len(), 1, "kept before anyone hears of it");
    world.request(0, Request::ShareSecret(secret(NamespaceId::CLUSTER, 2, 10)));
    world.request(1, Request::ShareSecret(secret(NamespaceId::CLUSTER, 3, 11)));
    settle(&mut world);
    let all = [secret(NamespaceId::CLUSTER, 3, 11), secret(own, 1, 10)];
    assert_eq!(world.processes[0].secrets, all);
    assert_eq!(world.processes[1].secrets, all);
    world.restart(2);
    settle(&mut world);
    assert_eq!(world.processes[2].secrets, all);
    world.crash(0);
    world.restart(0);
    settle(&mut world);
    assert_eq!(world.processes[0].secrets, all, "kept over a restart");
}

#[test]
fn the_secrets_of_a_deleted_namespace_are_gone_for_good() {
    let mut world = calm(3);
    let own = NamespaceId([7; 16]);
    let ticket = world.request(0, Request::ShareSecret(secret(own, 1, 10)));
    settle(&mut world);
    assert!(matches!(world.replies[&ticket], Reply::Done));
    world.crash(2);
    let deleted = Key::new(NamespaceId::DELETED, &own.0).expect("16 bytes are a key");
    world.write(0, deleted, inline(b"\0"));
    assert!(world.processes[0].secrets.is_empty(), "destroyed before the deletion is acknowledged");
    settle(&mut world);
    assert!(world.processes[1].secrets.is_empty());
    assert_eq!(world.processes[2].secrets.len(), 1);
    world.restart(2);
    settle(&mut world);
    for process in 0..3 {
        assert!(world.processes[process].secrets.is_empty(), "process {process}: who was away does not bring it back");
    }
    let ticket = world.request(1, Request::ShareSecret(secret(own, 9, 99)));
    assert!(matches!(world.replies[&ticket], Reply::Refused(Refusal::NamespaceDeleted)));
}

#[test]
fn too_many_or_too_long_secrets_are_no_message() {
    let long = SharedSecret { bytes: SecretBytes(vec![0; SECRET_LEN_MAX + 1]), ..secret(NamespaceId::SYSTEM, 1, 1) };
    assert!(Message::decode(&Message::Secrets(vec![long]).encode()).is_err());
    let many = vec![secret(NamespaceId::SYSTEM, 1, 1); SECRETS_PER_MESSAGE_MAX + 1];
    assert!(Message::decode(&Message::Secrets(many).encode()).is_err());
}

fn held(world: &World, process: usize, key: &Key) -> Entry {
    let replica = world.processes[process].replica.as_ref().expect("it runs");
    replica.store().get(key).expect("memory does not fail").expect("it is held")
}

/// Changes what a process has on disk, behind its back.
fn rot(world: &mut World, process: usize, change: impl Fn(&mut Tampered<'_>)) {
    world.processes[process].replica.as_mut().expect("it runs").store_mut().tamper(change);
}

fn flipped(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    entry.register.val.value = Value::Inline(Bytes::from_static(b"rotten"));
    entry
}

#[test]
fn a_damaged_entry_is_replaced_by_what_a_peer_holds() {
    let mut world = calm(3);
    let key = user_key(1);
    world.write(0, key.clone(), inline(b"good"));
    settle(&mut world);
    let good = held(&world, 1, &key);
    // The first peer asked may be rotten as well: its copy is not taken, and it does not give it out.
    for process in [0, 1] {
        rot(&mut world, process, |rows| rows.set(&key, Some(flipped(&good))));
    }
    let ticket = world.request(1, Request::Repair(Damage::Entry(key.clone())));
    settle(&mut world);
    assert!(matches!(world.replies[&ticket], Reply::Done), "{:?}", world.replies[&ticket]);
    assert_eq!(held(&world, 1, &key), good);
    assert_eq!(held(&world, 0, &key), flipped(&good), "nobody has complained there");
    assert_eq!(world.alarms.get("Damaged"), Some(&1));
    assert_eq!((counter(&world, 1, "damaged"), counter(&world, 1, "repaired")), (1, 1));
}

#[test]
fn what_nobody_else_holds_is_not_repaired_and_said_so() {
    let mut world = calm(2);
    let key = user_key(1);
    world.write(0, key.clone(), inline(b"good"));
    settle(&mut world);
    let good = held(&world, 0, &key);
    for process in [0, 1] {
        rot(&mut world, process, |rows| rows.set(&key, Some(flipped(&good))));
    }
    let ticket = world.request(0, Request::Repair(Damage::Entry(key.clone())));
    settle(&mut world);
    assert!(matches!(world.replies[&ticket], Reply::Refused(Refusal::NotElsewhere)));
    world.crash(1);
    let ticket = world.request(0, Request::Repair(Damage::Entry(key)));
    assert!(matches!(world.replies[&ticket], Reply::Refused(Refusal::NotElsewhere)), "at once, without peers");
}

#[test]
fn a_silent_peer_is_passed_over_when_something_is_repaired() {
    let mut world = calm(3);
    let key = user_key(1);
    world.write(0, key.clone(), inline(b"good"));
    settle(&mut world);
    let good = held(&world, 0, &key);
    rot(&mut world, 0, |rows| rows.set(&key, Some(flipped(&good))));
    // What is sent to it is never taken.
    world.stuck.insert(1);
    let ticket = world.request(0, Request::Repair(Damage::Entry(key.clone())));
    world.run_until(world.now + REPAIR_TIMEOUT + Mono::from_ms(500));
    assert!(matches!(world.replies[&ticket], Reply::Done));
    assert_eq!(held(&world, 0, &key), good);
    world.unstick(1);
}

#[test]
fn a_damaged_chunk_is_replaced_by_a_peers() {
    let mut world = calm(2);
    let (key, id) = (user_key(1), BlobId([5; 16]));
    let chunks: Vec<Bytes> = (0..2u8).map(|index| Bytes::from(vec![index; 40])).collect();
    for (index, chunk) in (0..).zip(&chunks) {
        world.request(0, Request::PutChunk { key: key.clone(), id, index, chunk: chunk.clone() });
    }
    let hashes = chunks.iter().map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    let content = Content { value: Value::Blob(Blob { id, len: 300_000, chunks: hashes }), ..inline(b"") };
    world.write(0, key.clone(), content);
    settle(&mut world);
    let address = BlobAddress::of(&key, id);
    rot(&mut world, 1, |rows| rows.set_chunk(address, 1, Bytes::from_static(b"rotten")));
    let ticket = world.request(1, Request::Repair(Damage::Chunk(key, id, 1)));
    settle(&mut world);
    assert!(matches!(world.replies[&ticket], Reply::Done));
    let replica = world.processes[1].replica.as_ref().expect("it runs");
    assert_eq!(replica.store().chunk(address, 1).expect("memory does not fail"), Some(chunks[1].clone()));
}

fn verified(world: &mut World, process: usize, repair: bool) -> Verification {
    let ticket = world.request(process, Request::Verify { peer: None, repair });
    settle(world);
    match world.replies.remove(&ticket) {
        Some(Reply::Verified(report)) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn verification_finds_old_rotten_and_vanished_entries_and_mends_them() {
    let mut world = calm(2);
    let keys: Vec<Key> = (0..3 * VERIFY_PAGE as u64).map(user_key).collect();
    for key in &keys {
        world.write(0, key.clone(), inline(b"first"));
    }
    settle(&mut world);
    let clean = verified(&mut world, 1, false);
    assert!(clean.compared >= keys.len() as u64 && !clean.cut_short, "{clean:?}");
    assert_eq!((clean.damaged, clean.missing, clean.stale, clean.behind_at_peer), (0, 0, 0, 0), "{clean:?}");

    let old = held(&world, 1, &keys[7]);
    world.write(0, keys[7].clone(), inline(b"second"));
    settle(&mut world);
    let (second, rotten) = (held(&world, 1, &keys[7]), flipped(&held(&world, 1, &keys[300])));
    rot(&mut world, 1, |rows| {
        rows.set(&keys[7], Some(old.clone()));
        rows.set(&keys[300], Some(rotten.clone()));
        for key in &keys[400..700] {
            rows.set(key, None);
        }
    });
    let found = verified(&mut world, 1, false);
    assert_eq!((found.stale, found.damaged, found.missing, found.repaired), (1, 1, 300, 0), "{found:?}");
    assert_eq!(found.examples.len(), VERIFY_EXAMPLES_MAX);
    let seen_from_there = verified(&mut world, 0, true);
    assert_eq!(seen_from_there.behind_at_peer, 301, "{seen_from_there:?}");
    assert_eq!(seen_from_there.repaired, 0, "nothing is wrong here");

    let mended = verified(&mut world, 1, true);
    assert_eq!(mended.repaired, 302, "{mended:?}");
    assert_eq!(held(&world, 1, &keys[7]), second);
    for key in &keys {
        assert_eq!(held(&world, 0, key), held(&world, 1, key));
    }
    let digests: Vec<DigestSum> = world.replicas().map(Replica::digest).collect();
    assert_eq!(digests[0], digests[1], "also of what had vanished while it was summed up");
    let clean = verified(&mut world, 1, false);
    assert_eq!((clean.damaged, clean.missing, clean.stale, clean.behind_at_peer), (0, 0, 0, 0), "{clean:?}");
}

#[test]
fn verification_without_peers_is_refused_and_ends_when_its_peer_is_lost() {
    let mut world = calm(2);
    let first = world.request(0, Request::Verify { peer: None, repair: false });
    let second = world.request(0, Request::Verify { peer: None, repair: false });
    assert!(matches!(world.replies[&second], Reply::Refused(Refusal::Overloaded)), "one at a time");
    world.crash(1);
    assert!(matches!(&world.replies[&first], Reply::Verified(report) if report.cut_short));
    let third = world.request(0, Request::Verify { peer: Some(NodeId(2)), repair: false });
    assert!(matches!(world.replies[&third], Reply::Refused(Refusal::NotElsewhere)));
}
