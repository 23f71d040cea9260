//! What users and operators rely on, told one by one in a calm world.

use super::*;
use crate::replica::limits::*;

pub(super) fn calm(nodes: usize) -> World {
    let mut world = World::new(7, Roughness { nodes, drop: 0.0, repeat: 0.0, faults: false }, Sabotage::default());
    settle(&mut world);
    world
}

pub(super) fn settle(world: &mut World) {
    world.run_until(world.now + Mono::from_ms(3_000));
    world.connect_all();
    world.run_until(world.now + Mono::from_ms(3_000));
}

fn read(world: &World, process: usize, key: &Key) -> Option<Content> {
    let replica = world.processes[process].replica.as_ref().expect("it runs");
    replica.store().get(key).expect("memory does not fail").map(|entry| entry.content().clone())
}

fn written(world: &World, ticket: Ticket) -> (Dot, Marker) {
    match world.replies.get(&ticket) {
        Some(Reply::Written { dot, marker, .. }) => (*dot, *marker),
        other => panic!("{other:?}"),
    }
}

pub(super) fn counter(world: &World, process: usize, name: &str) -> u64 {
    let replica = world.processes[process].replica.as_ref().expect("it runs");
    replica.counters.get(name).copied().unwrap_or(0)
}

#[test]
fn a_write_is_pushed_at_once_and_needs_no_sync() {
    let mut world = calm(3);
    let before = counter(&world, 2, "syncs_completed");
    world.write(0, user_key(1), inline(b"fresh"));
    world.run_until(world.now + Mono::from_ms(41));
    assert_eq!(read(&world, 1, &user_key(1)), Some(inline(b"fresh")));
    assert_eq!(read(&world, 2, &user_key(1)), Some(inline(b"fresh")));
    settle(&mut world);
    assert_eq!(counter(&world, 2, "syncs_completed"), before, "an idle flock in step syncs nothing");
}

#[test]
fn a_later_local_write_beats_a_far_future_one_without_moving_the_clock() {
    let mut world = calm(2);
    world.processes[0].skew_ms = 3_600_000 * 24 * 365;
    let poisoned = world.write(0, user_key(1), inline(b"from the future"));
    world.processes[0].skew_ms = 0;
    settle(&mut world);
    let (_, future) = written(&world, poisoned);
    let ticket = world.write(1, user_key(1), inline(b"now"));
    let (_, marker) = written(&world, ticket);
    assert_eq!(marker.time, future.time.next());
    let ticket = world.write(1, user_key(2), inline(b"elsewhere"));
    let (_, marker) = written(&world, ticket);
    let wall_ms = world.at(1).wall_ms;
    assert!(marker.time.ms() <= wall_ms + ABSORB_MS_MAX, "{marker:?} at {wall_ms}");
    settle(&mut world);
    assert_eq!(read(&world, 0, &user_key(1)), Some(inline(b"now")));
}

#[test]
fn a_marker_beyond_the_ceiling_is_dropped_by_all_and_its_dot_is_seen() {
    let mut world = calm(2);
    let liar = Origin { node: NodeId(2), incarnation: Incarnation(9) };
    let key = user_key(1);
    let stamp = Timestamp::from_ms(world.at(0).wall_ms);
    let marker = Marker { time: Timestamp(u64::MAX), origin: liar };
    let entry = Entry::new(&key, liar.dot(1), stamp, marker, inline(b"for ever"));
    let push = Push { record: entry.to_record(&key), covers: Vec::new() };
    let (link, _) = world.processes[0].links[&NodeId(2)];
    let message = Message::Records(Records { pushes: vec![push] });
    world.turn(0, Input::Received { node: NodeId(2), link, message });
    settle(&mut world);
    for process in [0, 1] {
        assert_eq!(read(&world, process, &key), None);
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        assert!(replica.store().image().versions().contains(liar.dot(1)), "process {process}");
    }
}

#[test]
fn a_wrong_clock_mints_from_its_peers_and_a_very_wrong_one_refuses() {
    let mut world = calm(3);
    world.processes[0].skew_ms = 5_000;
    settle(&mut world);
    let ticket = world.write(0, user_key(1), inline(b"corrected"));
    let (_, marker) = written(&world, ticket);
    let true_ms = world.at(1).wall_ms;
    assert!(marker.time.ms().abs_diff(true_ms) <= ABSORB_MS_MAX, "{} {true_ms}", marker.time.ms());
    assert!(world.alarms.contains_key("ClockSkew"));
    world.processes[0].skew_ms = -90_000;
    settle(&mut world);
    let ticket = world.write(0, user_key(1), inline(b"refused"));
    assert!(matches!(world.replies[&ticket], Reply::Refused(Refusal::ClockFenced(ahead)) if ahead < -80_000));
}

#[test]
fn acknowledgements_count_what_is_on_disk_elsewhere() {
    let mut world = calm(3);
    let ticket = world.write(0, user_key(1), inline(b"precious"));
    let (dot, _) = written(&world, ticket);
    let wait = Request::AwaitAcks { dot, level: AckLevel::All, patience_ms: 20_000 };
    let ticket = world.request(0, wait);
    assert!(!world.replies.contains_key(&ticket), "nobody else can have it yet");
    world.run_until(world.now + Mono::from_ms(15_000));
    match &world.replies[&ticket] {
        Reply::Acknowledged(nodes) => assert_eq!(nodes.len(), 3),
        other => panic!("{other:?}"),
    }
    for replica in world.replicas() {
        assert!(replica.store().durable_image().entry(&user_key(1)).is_some(), "acknowledged before it was durable");
    }
    world.crash(2);
    let ticket = world.write(0, user_key(2), inline(b"less precious"));
    let (dot, _) = written(&world, ticket);
    let two = world.request(0, Request::AwaitAcks { dot, level: AckLevel::Nodes(2), patience_ms: 15_000 });
    let all = world.request(0, Request::AwaitAcks { dot, level: AckLevel::All, patience_ms: 15_000 });
    world.run_until(world.now + Mono::from_ms(15_100));
    assert!(matches!(&world.replies[&two], Reply::Acknowledged(nodes) if nodes.len() == 2));
    assert!(matches!(&world.replies[&all], Reply::TimedOut(nodes) if nodes.len() == 2));
    let unknown =
        world.request(0, Request::AwaitAcks { dot: dot.origin.dot(99), level: AckLevel::All, patience_ms: 1 });
    assert!(matches!(world.replies[&unknown], Reply::Refused(Refusal::UnknownDot)));
}

#[test]
fn a_bookmark_is_waited_for_and_time_runs_out() {
    let mut world = calm(2);
    let ticket = world.write(0, user_key(1), inline(b"mine"));
    let (dot, _) = written(&world, ticket);
    let wait = |dot: Dot, patience_ms| {
        let mut bookmark = Bookmark::default();
        bookmark.note(dot, Timestamp::default());
        Request::AwaitCovered { bookmark, patience_ms }
    };
    let early = world.request(1, wait(dot, 1_000));
    assert!(!world.replies.contains_key(&early), "it is still on its way");
    world.run_until(world.now + Mono::from_ms(60));
    assert!(matches!(world.replies[&early], Reply::Done));
    let never = world.request(1, wait(dot.origin.dot(dot.seq + 1), 500));
    world.run_until(world.now + Mono::from_ms(600));
    assert!(matches!(world.replies[&never], Reply::TimedOut(_)));
}

#[test]
fn a_deleted_namespace_takes_everything_with_it_also_what_comes_late() {
    let mut world = calm(3);
    for number in 0..2 * SWEEP_ROWS_PER_TURN as u64 + 10 {
        world.write(0, user_key(number), inline(b"gone"));
    }
    settle(&mut world);
    world.crash(2);
    let namespace = user_key(0).namespace();
    let deletion = Key::new(NamespaceId::DELETED, &namespace.0).expect("16 bytes are a key");
    world.write(0, deletion, inline(b""));
    settle(&mut world);
    let late = world.write(1, user_key(5), inline(b"late"));
    assert!(matches!(world.replies[&late], Reply::Refused(Refusal::NamespaceDeleted)));
    world.restart(2);
    world.write(2, user_key(6), inline(b"written before it could know"));
    world.connect_all();
    settle(&mut world);
    for replica in world.replicas() {
        let left = replica.store().image().entries().filter(|(key, _)| key.namespace() == namespace).count();
        assert_eq!(left, 0);
    }
    check_invariant_of_others(&world);
    check_converged(&world, &BTreeMap::new()).expect("all agree");
}

/// The invariant for keys outside the deleted namespace: inside it, the deletion dominates.
fn check_invariant_of_others(world: &World) {
    for replica in world.replicas() {
        let image = replica.store().image();
        for (dot, (key, marker)) in &world.written {
            if key.namespace().is_system() && image.versions().contains(*dot) {
                assert!(image.entry(key).is_some_and(|entry| entry.marker() >= *marker), "{dot}");
            }
        }
    }
}

#[test]
fn a_node_that_leaves_is_fenced_everywhere_and_what_it_wrote_stays() {
    let mut world = calm(3);
    world.write(2, user_key(1), inline(b"legacy"));
    let ticket = world.request(2, Request::Leave);
    assert!(matches!(world.replies[&ticket], Reply::Written { .. }));
    settle(&mut world);
    for process in [0, 1] {
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        assert!(replica.roster().is_evicted(NodeId(3)));
        assert!(!replica.peers.contains_key(&NodeId(3)), "process {process} still talks to it");
        assert_eq!(read(&world, process, &user_key(1)), Some(inline(b"legacy")));
    }
    let refused = world.write(2, user_key(2), inline(b"too late"));
    assert!(matches!(world.replies[&refused], Reply::Refused(Refusal::Evicted)));
    let ticket = world.write(0, user_key(3), inline(b"all that are left"));
    let (dot, _) = written(&world, ticket);
    let all = world.request(0, Request::AwaitAcks { dot, level: AckLevel::All, patience_ms: 15_000 });
    world.run_until(world.now + Mono::from_ms(15_100));
    assert!(matches!(&world.replies[&all], Reply::Acknowledged(nodes) if nodes.len() == 2));
}

#[test]
fn a_node_knows_whether_others_have_what_it_wrote_in_former_lives() {
    let mut world = calm(2);
    let has_all = |world: &World| {
        let replica = world.processes[0].replica.as_ref().expect("it runs");
        replica.status(world.at(0)).peers[0].former_agree
    };
    assert_eq!(has_all(&world), Some(true));
    world.crash(1);
    world.write(0, user_key(1), inline(b"while alone"));
    world.run_until(world.now + Mono::from_ms(100));
    world.crash(0);
    world.restart(0);
    assert_eq!(has_all(&world), None, "there was no beat yet");
    world.restart(1);
    world.connect(0, 1);
    world.run_until(world.now + Mono::from_ms(45));
    assert_eq!((has_all(&world), read(&world, 1, &user_key(1))), (Some(false), None), "one beat, no session yet");
    settle(&mut world);
    assert_eq!(has_all(&world), Some(true));
    assert_eq!(read(&world, 1, &user_key(1)), Some(inline(b"while alone")));
}

#[test]
fn a_node_that_is_lost_is_evicted_by_another_and_nobody_waits_for_it_any_more() {
    let mut world = calm(3);
    world.write(2, user_key(1), inline(b"legacy"));
    settle(&mut world);
    world.crash(2);
    let acks = |world: &mut World, key| {
        let ticket = world.write(0, user_key(key), inline(b"for all"));
        let (dot, _) = written(world, ticket);
        let all = world.request(0, Request::AwaitAcks { dot, level: AckLevel::All, patience_ms: 2_000 });
        world.run_until(world.now + Mono::from_ms(2_500));
        world.replies[&all].clone()
    };
    assert!(matches!(acks(&mut world, 2), Reply::TimedOut(nodes) if nodes.len() == 2), "it is waited for");
    let ticket = world.request(0, Request::Evict(NodeId(3)));
    assert!(matches!(world.replies[&ticket], Reply::Written { .. }));
    world.run_until(world.now + Mono::from_ms(2_000));
    assert!(matches!(acks(&mut world, 3), Reply::Acknowledged(nodes) if nodes.len() == 2));
    assert_eq!(read(&world, 1, &user_key(1)), Some(inline(b"legacy")));
    // Should it come back, it learns that it is out.
    world.restart(2);
    world.connect_all();
    world.run_until(world.now + Mono::from_ms(2_000));
    for process in [0, 1] {
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        assert!(replica.roster().is_evicted(NodeId(3)) && !replica.peers.contains_key(&NodeId(3)), "{process}");
    }
}

#[test]
fn the_older_of_two_processes_with_one_identity_stops_writing() {
    let mut world = calm(3);
    let image = world.processes[2].replica.as_ref().expect("it runs").store().image().clone();
    let clone = world.clone_process(2, image);
    world.run_until(world.now + Mono::from_ms(500));
    // Both dial again whenever the other one has taken their place, as they would.
    for process in [2, clone, 2] {
        world.connect(0, process);
        world.run_until(world.now + Mono::from_ms(500));
    }
    let old = world.write(2, user_key(1), inline(b"old"));
    let new = world.write(clone, user_key(2), inline(b"new"));
    assert!(matches!(world.replies[&old], Reply::Refused(Refusal::Superseded)), "{:?}", world.replies[&old]);
    assert!(matches!(world.replies[&new], Reply::Written { .. }));
    assert!(world.alarms.contains_key("Superseded"));
}

#[test]
fn a_process_started_after_its_clock_was_set_back_is_not_the_older_one() {
    let mut world = calm(3);
    for skew_ms in [3_600_000, 0] {
        world.crash(2);
        world.processes[2].skew_ms = skew_ms;
        world.restart(2);
        world.connect_all();
        settle(&mut world);
    }
    let ticket = world.write(2, user_key(1), inline(b"well again"));
    assert!(matches!(world.replies[&ticket], Reply::Written { .. }), "{:?}", world.replies[&ticket]);
    assert!(!world.alarms.contains_key("Superseded"), "{:?}", world.alarms);
}

/// What a beat promises stands in no commit of its own: a process that starts with a clock set back must know of it.
#[test]
fn a_promise_binds_the_process_after_it() {
    let mut world = calm(2);
    world.crash(1);
    world.processes[1].skew_ms = 3_600_000;
    world.restart(1);
    world.connect_all();
    settle(&mut world);
    world.crash(1);
    world.processes[1].skew_ms = 0;
    world.restart(1);
    let promised = world.processes[0].replica.as_ref().expect("it runs").watermark();
    assert!(promised.ms() > world.at(0).wall_ms + 3_000_000, "it was an hour ahead: {promised:?}");
    let ticket = world.write(1, user_key(1), inline(b"after all"));
    let (_, marker) = written(&world, ticket);
    assert!(marker.time > promised, "{marker:?} is stamped within what was promised: {promised:?}");
}

#[test]
fn one_wrong_clock_among_three_stops_nobody_else() {
    let mut world = calm(3);
    world.processes[0].skew_ms = 130_000;
    settle(&mut world);
    for process in [1, 2] {
        let ticket = world.write(process, user_key(process as u64), inline(b"on time"));
        let (_, marker) = written(&world, ticket);
        let true_ms = world.at(process).wall_ms;
        assert!(marker.time.ms().abs_diff(true_ms) <= ABSORB_MS_MAX, "{} {true_ms}", marker.time.ms());
    }
    let ticket = world.write(0, user_key(1), inline(b"refused"));
    assert!(matches!(world.replies[&ticket], Reply::Refused(Refusal::ClockFenced(ahead)) if ahead > 120_000));
}

/// Node 3 has been put back to an old copy of its directory. Of what it had written meanwhile a part survives at one
/// node, with a gap that nobody can ever fill.
fn world_with_a_lost_write(sabotage: Sabotage) -> World {
    let mut world = World::new(7, Roughness { nodes: 3, drop: 0.0, repeat: 0.0, faults: false }, sabotage);
    settle(&mut world);
    let lost = Origin { node: NodeId(3), incarnation: Incarnation(9) };
    let (key, stamp) = (user_key(1), Timestamp::from_ms(world.at(0).wall_ms));
    let marker = Marker { time: stamp, origin: lost };
    let entry = Entry::new(&key, lost.dot(3), stamp, marker, inline(b"what survived"));
    // Number 1 went nowhere, number 3 stands for number 2.
    let push = Push { record: entry.to_record(&key), covers: vec![lost.dot(2)] };
    let (link, _) = world.processes[0].links[&NodeId(3)];
    let message = Message::Records(Records { pushes: vec![push] });
    world.turn(0, Input::Received { node: NodeId(3), link, message });
    for _ in 0..4 {
        settle(&mut world);
    }
    world
}

#[test]
fn a_gap_that_nobody_can_fill_keeps_nobody_out_of_step() {
    let mut world = world_with_a_lost_write(Sabotage::default());
    check_converged(&world, &BTreeMap::new()).expect("all agree");
    for process in 0..3 {
        assert_eq!(read(&world, process, &user_key(1)), Some(inline(b"what survived")));
    }
    let before = counter(&world, 1, "syncs_asked");
    settle(&mut world);
    assert_eq!(counter(&world, 1, "syncs_asked"), before, "nor busy");
}

/// A test of the test before: this is what intervals in sessions are for.
#[test]
fn without_intervals_a_gap_that_nobody_can_fill_keeps_all_out_of_step() {
    let world = world_with_a_lost_write(Sabotage::IgnoreIntervals);
    assert_eq!(check_converged(&world, &BTreeMap::new()), Err(Violation::NotInStep));
}

/// Beyond the bound of intervals a write is held and no version vector says so; the digest does.
#[test]
fn what_lies_beyond_all_bookkeeping_reaches_everyone() {
    let mut world = calm(3);
    let lost = Origin { node: NodeId(3), incarnation: Incarnation(9) };
    let receive = |world: &mut World, number: u64| {
        let (key, stamp) = (user_key(100 + number), Timestamp::from_ms(world.at(0).wall_ms));
        let marker = Marker { time: stamp, origin: lost };
        let entry = Entry::new(&key, lost.dot(2 * number), stamp, marker, inline(b"with a gap before it"));
        let push = Push { record: entry.to_record(&key), covers: Vec::new() };
        let (link, _) = world.processes[0].links[&NodeId(3)];
        let message = Message::Records(Records { pushes: vec![push] });
        world.turn(0, Input::Received { node: NodeId(3), link, message });
    };
    let bound = INTERVALS_PER_ORIGIN_MAX as u64;
    (1..=bound).for_each(|number| receive(&mut world, number));
    (0..4).for_each(|_| settle(&mut world));
    check_converged(&world, &BTreeMap::new()).expect("as much as the bound allows");
    receive(&mut world, bound + 1);
    let hashes: BTreeSet<String> = world.replicas().map(|replica| replica.version_hash().to_string()).collect();
    assert_eq!(hashes.len(), 1, "it is forgotten again");
    (0..10).for_each(|_| settle(&mut world));
    check_converged(&world, &BTreeMap::new()).expect("and held by all");
    assert!(read(&world, 2, &user_key(100 + bound + 1)).is_some());
}

#[test]
fn a_large_value_is_visible_only_whole_and_the_old_one_until_then() {
    let mut world = calm(2);
    world.write(0, user_key(1), inline(b"old"));
    settle(&mut world);
    let id = BlobId([4; 16]);
    let chunks: Vec<Bytes> = (0..3).map(|index| Bytes::from(vec![index; 100])).collect();
    let hashes: Vec<_> = chunks.iter().map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    let blob = Value::Blob(Blob { id, len: 2 * CHUNK_LEN as u64 + 5, chunks: hashes });
    let content = Content { value: blob, ..inline(b"") };
    let missing = world.write(0, user_key(1), content.clone());
    assert!(matches!(world.replies[&missing], Reply::Refused(Refusal::TooLarge)), "its chunks are not here");
    for (index, chunk) in (0..).zip(&chunks) {
        world.request(0, Request::PutChunk { key: user_key(1), id, index, chunk: chunk.clone() });
    }
    let ticket = world.write(0, user_key(1), content.clone());
    let (dot, _) = written(&world, ticket);
    let mut saw_pending = false;
    for _ in 0..200 {
        world.run_until(world.now + Mono::from_ms(1));
        let replica = world.processes[1].replica.as_ref().expect("it runs");
        let is_new = read(&world, 1, &user_key(1)) == Some(content.clone());
        assert_eq!(replica.store().image().versions().contains(dot), is_new, "seen exactly when held");
        saw_pending |= replica.blobs.waiting() == 1;
        if is_new {
            let address = BlobAddress::of(&user_key(1), id);
            assert_eq!(replica.store().chunks_held(address, 3).expect("memory does not fail"), [true; 3]);
        }
    }
    assert!(saw_pending);
    assert_eq!(read(&world, 1, &user_key(1)), Some(content));
    // Overwritten, its chunks go, at both nodes.
    world.write(1, user_key(1), inline(b"small again"));
    settle(&mut world);
    for replica in world.replicas() {
        let address = BlobAddress::of(&user_key(1), id);
        assert_eq!(replica.store().chunks_held(address, 3).expect("memory does not fail"), [false; 3]);
    }
}

#[test]
fn large_values_that_are_overwritten_before_they_can_be_pulled_hold_nobody_up() {
    let mut world = calm(3);
    let large = |number: u64, version: u64| {
        let chunk = Bytes::from(format!("{number}, {version}").into_bytes());
        let id = BlobId([version as u8; 16]);
        let blob = Blob { id, len: chunk.len() as u64, chunks: vec![*blake3::hash(&chunk).as_bytes()] };
        (Request::PutChunk { key: user_key(number), id, index: 0, chunk }, Value::Blob(blob))
    };
    // All within a moment: the chunks of all versions but the last are gone when the others ask for them.
    world.latency_us = 100_000..150_000;
    let (count, last) = (40, 2 * PENDING_MAX as u64 / 40);
    for version in 1..=last {
        for number in 0..count {
            let (upload, value) = large(number, version);
            world.request(0, upload);
            world.write(0, user_key(number), Content { value, ..inline(b"") });
        }
    }
    for _ in 0..10 {
        settle(&mut world);
    }
    for number in 0..count {
        let content = Content { value: large(number, last).1, ..inline(b"") };
        assert_eq!(read(&world, 1, &user_key(number)), Some(content.clone()), "{number}");
        assert_eq!(read(&world, 2, &user_key(number)), Some(content), "{number}");
    }
    assert!(counter(&world, 1, "pending_forgotten") > 0, "otherwise this shows nothing");
    check_converged(&world, &BTreeMap::new()).expect("all agree");
}

#[test]
fn a_stuck_peer_is_left_behind_and_catches_up_without_holding_anyone() {
    let mut world = calm(3);
    world.stuck.insert(2);
    for number in 0..RUMOR_KEYS_MAX as u64 + 2_000 {
        world.write(0, user_key(number), inline(&[7; 200]));
    }
    world.run_until(world.now + Mono::from_ms(50));
    assert_eq!(read(&world, 1, &user_key(3)), Some(inline(&[7; 200])));
    let waiting = world.processes[0].replica.as_ref().expect("it runs").peers[&NodeId(3)].queue.len();
    assert!(waiting <= RUMOR_KEYS_MAX, "{waiting}");
    assert!(counter(&world, 0, "lagging_peers") > 0);
    world.unstick(2);
    for _ in 0..4 {
        settle(&mut world);
    }
    check_converged(&world, &BTreeMap::new()).expect("all agree");
}

#[test]
fn a_session_under_which_much_is_written_is_cut_and_goes_on_where_it_was() {
    let mut world = calm(2);
    world.latency_us = 100_000..110_000;
    world.stuck.insert(1);
    let value = [7; 60_000];
    let (before, meanwhile) = (150, SESSION_WRITES_MAX / value.len() as u64 + 100);
    for number in 0..before {
        world.write(0, user_key(number), inline(&value));
    }
    world.run_until(world.now + RUMOR_AGE_MAX + Mono::from_ms(1_000));
    world.unstick(1);
    let (served, synced) = (counter(&world, 0, "syncs_served"), counter(&world, 1, "records_synced"));
    while counter(&world, 0, "syncs_served") == served {
        world.run_until(world.now + Mono::from_ms(10));
    }
    for number in 0..meanwhile {
        world.write(0, user_key(before + number), inline(&value));
        let load = world.processes[0].replica.as_ref().expect("it runs").load();
        assert!(load.session_writes <= SESSION_WRITES_MAX, "{} bytes", load.session_writes);
    }
    for _ in 0..4 {
        settle(&mut world);
    }
    assert!(counter(&world, 0, "syncs_cut") > 0, "otherwise this shows nothing");
    check_converged(&world, &BTreeMap::new()).expect("all agree");
    let synced = counter(&world, 1, "records_synced") - synced;
    assert!(synced < before + meanwhile + 20, "{synced} records: what a session had brought came again");
}

#[test]
fn an_expired_value_gives_its_bytes_back_and_still_wins() {
    let mut world = calm(3);
    let id = BlobId([9; 16]);
    let chunk = Bytes::from_static(b"large");
    let blob = Value::Blob(Blob { id, len: 5, chunks: vec![*blake3::hash(&chunk).as_bytes()] });
    let expire_ms = world.at(0).wall_ms + 2_000;
    world.crash(2);
    world.request(0, Request::PutChunk { key: user_key(1), id, index: 0, chunk });
    world.write(0, user_key(1), Content { value: blob, expire_ms, ..inline(b"") });
    world.write(0, user_key(2), Content { expire_ms, ..inline(b"small") });
    world.write(0, user_key(3), Content { expire_ms, ..inline(b"renewed") });
    world.write(0, user_key(3), inline(b"for ever"));
    let digest = world.processes[0].replica.as_ref().expect("it runs").digest();
    settle(&mut world);
    let address = BlobAddress::of(&user_key(1), id);
    let has_chunk = |world: &World, process: usize| {
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        replica.store().chunk(address, 0).expect("memory does not fail").is_some()
    };
    assert!(has_chunk(&world, 0) && has_chunk(&world, 1), "not before everyone's clock says so");
    world.run_until(world.now + Mono::from_ms(EXPIRED_GRACE_MS + 3_000));
    // Who was away is sent what is left of it.
    world.restart(2);
    world.connect_all();
    settle(&mut world);
    for process in 0..3 {
        assert!(!has_chunk(&world, process), "process {process}");
        for key in [1, 2] {
            let content = read(&world, process, &user_key(key)).expect("its header stays");
            assert!(matches!(content.value, Value::Dropped(_)), "process {process}: {content:?}");
        }
        assert_eq!(read(&world, process, &user_key(3)), Some(inline(b"for ever")));
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        assert_eq!(replica.digest(), digest, "process {process}");
    }
    check_converged(&world, &BTreeMap::new()).expect("all agree");
}

#[test]
fn a_failing_disk_acknowledges_nothing() {
    let mut world = calm(2);
    let now = world.at(0);
    let replica = world.processes[0].replica.as_mut().expect("it runs");
    replica.store_mut().fail();
    let request = Request::Write { key: user_key(1), content: inline(b"lost") };
    replica.handle(Input::Request { ticket: 1_000_000, request }, now).expect("only staged");
    assert!(replica.commit(now).is_err());
    assert!(replica.store().get(&user_key(1)).expect("reads go on").is_none());
}
