//! Members that lie, one lie at a time; the simulator has them tell all of them together.

use super::stories::{calm, counter, settle};
use super::*;
use crate::replica::limits::*;

/// The peer that lies in these tests.
const LIAR: NodeId = NodeId(2);

/// The liar sends this to process 0.
fn tell(world: &mut World, message: Message) {
    let (link, _) = world.processes[0].links[&LIAR];
    world.turn(0, Input::Received { node: LIAR, link, message });
}

fn push(record: Record, covers: Vec<Dot>) -> Message {
    Message::Records(Records { pushes: vec![Push { record, covers }] })
}

fn read(world: &World, process: usize, key: &Key) -> Option<Content> {
    let replica = world.processes[process].replica.as_ref().expect("it runs");
    replica.store().get(key).expect("memory does not fail").map(|entry| entry.content().clone())
}

fn seen(world: &World, process: usize, dot: Dot) -> bool {
    world.processes[process].replica.as_ref().expect("it runs").store().image().versions().contains(dot)
}

fn life_of(world: &World, process: usize) -> (Origin, u64) {
    let life = world.processes[process].replica.as_ref().expect("it runs").life.expect("it has written");
    (life.origin, life.last)
}

#[test]
fn no_marker_freezes_a_key() {
    let mut world = calm(3);
    let liar = Origin { node: LIAR, incarnation: Incarnation(9) };
    let wall_ms = world.at(0).wall_ms;
    let edge = Timestamp::from_ms(wall_ms + AHEAD_MS_MAX).0;
    let times = [Timestamp::CEILING.0, Timestamp::CEILING.0 - 1, edge + (1 << 30), edge, edge - 1, edge / 2];
    for (number, time) in (1..).zip(times) {
        let key = user_key(number);
        let marker = Marker { time: Timestamp(time), origin: liar };
        let entry = Entry::new(&key, liar.dot(number), Timestamp::from_ms(wall_ms), marker, inline(b"for ever"));
        tell(&mut world, push(entry.to_record(&key), Vec::new()));
    }
    for number in 1..=times.len() as u64 {
        for process in [0, 2] {
            let value = format!("{number} by {process}");
            let ticket = world.write(process, user_key(number), inline(value.as_bytes()));
            assert!(matches!(world.replies[&ticket], Reply::Written { .. }), "{:?}", world.replies[&ticket]);
            settle(&mut world);
            for reader in 0..3 {
                assert_eq!(
                    read(&world, reader, &user_key(number)),
                    Some(inline(value.as_bytes())),
                    "{number} at {reader}"
                );
            }
        }
    }
    assert!(counter(&world, 0, "records_far_ahead") > 0);
}

#[test]
fn who_claims_to_have_seen_what_nobody_wrote_keeps_no_write_out() {
    let mut world = calm(3);
    world.write(2, user_key(1), inline(b"true"));
    settle(&mut world);
    let (life, last) = life_of(&world, 2);
    let mut claims = VersionVector::default();
    claims.set(life, Seen::prefix_of(u64::MAX / 2));
    let (own, _) = {
        world.write(0, user_key(2), inline(b"own"));
        settle(&mut world);
        life_of(&world, 0)
    };
    claims.set(own, Seen::prefix_of(u64::MAX / 2));
    let replica = world.processes[0].replica.as_mut().expect("it runs");
    let (versions, store) = (&mut replica.versions, &mut replica.store);
    versions.join(store, &claims).expect("memory does not fail");
    assert!(seen(&world, 0, life.dot(last)));
    world.write(2, user_key(1), inline(b"later"));
    world.run_until(world.now + Mono::from_ms(41));
    assert_eq!(read(&world, 0, &user_key(1)), Some(inline(b"later")), "it is taken although it was seen");
    assert_eq!(counter(&world, 0, "seen_and_not_held"), 1);
    settle(&mut world);
    assert!(!seen(&world, 0, life.dot(last + 2)), "the writer's own word goes before others'");
    assert!(counter(&world, 0, "claims_cut") > 0);
}

#[test]
fn a_forged_write_of_another_is_on_no_version_vector_and_leaves_nobody_different() {
    let mut world = calm(3);
    world.write(2, user_key(1), inline(b"true"));
    settle(&mut world);
    let (life, last) = life_of(&world, 2);
    let stamp = Timestamp::from_ms(world.at(0).wall_ms + 1);
    let marker = Marker { time: stamp, origin: life };
    let forged = Entry::new(&user_key(5), life.dot(last + 1), stamp, marker, inline(b"forged"));
    tell(&mut world, push(forged.to_record(&user_key(5)), Vec::new()));
    assert_eq!(read(&world, 0, &user_key(5)), Some(inline(b"forged")), "nobody can tell");
    assert!(!seen(&world, 0, life.dot(last + 1)));
    // The true write with that dot is taken, too.
    world.write(2, user_key(6), inline(b"true as well"));
    world.run_until(world.now + Mono::from_ms(300_000));
    settle(&mut world);
    for process in 0..3 {
        assert_eq!(read(&world, process, &user_key(6)), Some(inline(b"true as well")), "{process}");
    }
    let digests: BTreeSet<u128> = world.replicas().map(|replica| replica.digest().0).collect();
    assert_eq!(digests.len(), 1, "they have compared all that they hold");
    let verified: u64 = (0..3).map(|process| counter(&world, process, "verifications_unasked")).sum();
    assert!(verified > 0);
}

#[test]
fn a_write_that_is_not_told_of_is_sent_on_after_a_restart_too_and_there_is_room_for_so_many() {
    let mut world = calm(3);
    let writer = NodeId(3);
    // A life that the version vector lacks, and the writer's own word of it is still on its way.
    let pass_on = |world: &mut World, number: u64| {
        let life = Origin { node: writer, incarnation: Incarnation(number) };
        let replica = world.processes[0].replica.as_mut().expect("it runs");
        replica.acquaintances.entry(writer).expect("a member").life = Some(life);
        let stamp = Timestamp::from_ms(world.at(0).wall_ms);
        let marker = Marker { time: stamp, origin: life };
        let entry = Entry::new(&user_key(number), life.dot(5), stamp, marker, inline(b"passed on"));
        tell(world, push(entry.to_record(&user_key(number)), Vec::new()));
        life
    };
    let life = pass_on(&mut world, 1);
    assert!(read(&world, 0, &user_key(1)).is_some() && !seen(&world, 0, life.dot(5)));
    let replica = world.processes[0].replica.as_mut().expect("it runs");
    assert!(replica.versions.active().get(life).is_none(), "or the version vector would do");
    assert_eq!(replica.untold_origins(), Ok(BTreeSet::from([life])));
    replica.untold = untold::Untold::recover(&replica.store, &replica.versions).expect("memory does not fail");
    assert_eq!(replica.untold_origins(), Ok(BTreeSet::from([life])), "found in the store");
    for number in 2..=UNTOLD_ORIGINS_MAX as u64 + 1 {
        pass_on(&mut world, number);
    }
    assert!(read(&world, 0, &user_key(UNTOLD_ORIGINS_MAX as u64)).is_some());
    assert_eq!(read(&world, 0, &user_key(UNTOLD_ORIGINS_MAX as u64 + 1)), None, "it must come again");
    assert_eq!(counter(&world, 0, "untold_writes_dropped"), 1);
}

#[test]
fn a_write_that_stands_for_those_of_another_ends_the_link() {
    let mut world = calm(3);
    world.write(2, user_key(1), inline(b"true"));
    settle(&mut world);
    let (life, last) = life_of(&world, 2);
    let liar = Origin { node: LIAR, incarnation: Incarnation(9) };
    let stamp = Timestamp::from_ms(world.at(0).wall_ms);
    let entry = Entry::new(&user_key(1), liar.dot(1), stamp, Marker { time: stamp, origin: liar }, inline(b"mine"));
    tell(&mut world, push(entry.to_record(&user_key(1)), vec![life.dot(last + 1)]));
    assert_eq!(world.alarms.get("BadPeer"), Some(&1));
    assert!(!seen(&world, 0, life.dot(last + 1)));
}

#[test]
fn a_secret_is_never_replaced_and_none_comes_from_the_end_of_time() {
    let mut world = calm(3);
    let secret = |number, rank, byte| SharedSecret {
        owner: NamespaceId([7; 16]),
        number,
        rank,
        bytes: SecretBytes(vec![byte; 32]),
    };
    world.request(0, Request::ShareSecret(secret(1, 10, 1)));
    settle(&mut world);
    tell(&mut world, Message::Secrets(vec![secret(1, u64::MAX, 2), secret(1, 11, 2), secret(2, u64::MAX, 2)]));
    settle(&mut world);
    for process in 0..3 {
        assert_eq!(world.processes[process].secrets, [secret(1, 10, 1)], "process {process}");
    }
}
