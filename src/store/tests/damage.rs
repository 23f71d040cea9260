//! Failing commits, killed processes, foreign and damaged directories, unreadable rows.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Tells this test binary, started by itself, to write until it is killed.
const CHILD_DIRECTORY: &str = "STARLING_TEST_KILLED_WRITER";

#[test]
fn a_failed_commit_ends_writing_and_not_reading() {
    let directory = directory();
    let mut store = open(&directory);
    let a = key(1, b"a");
    let first = inline(&a, origin(1).dot(1), b"1");
    store.put(&a, &first, None);
    store.commit(true).expect("commits");

    store.put(&a, &inline(&a, origin(1).dot(2), b"2"), Some(first.dot));
    store.fail_next_commit();
    assert_eq!(store.commit(true), Err(StoreError("no space left on device".into())));
    assert_eq!(store.get(&a), Ok(Some(first.clone())), "what failed is not staged any more");
    assert_eq!(store.reader().get(&a), Ok(Some(first.clone())));
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, 9), [(1, a.clone(), first)]);

    store.put(&a, &inline(&a, origin(1).dot(3), b"3"), None);
    let again = store.commit(false).expect_err("writing has ended");
    assert!(again.0.contains("no space left on device") && again.0.contains("restart"), "{again}");
    assert!(store.syncer().sync().is_err());
}

#[test]
fn a_failed_sync_fails_the_next_commit() {
    let directory = directory();
    let mut store = open(&directory);
    let syncer = store.syncer();
    store.set_clock(Timestamp::from_ms(1));
    store.commit(false).expect("commits");
    assert_eq!(std::thread::spawn(move || syncer.sync()).join().expect("no panic"), Ok(()));
    store.tables.fail(StoreError("input/output error".into()));
    store.set_clock(Timestamp::from_ms(2));
    assert!(store.commit(false).is_err_and(|error| error.0.contains("input/output error")));
}

/// A real one: the kernel refuses to let a file grow.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_ends_writing_and_not_reading() {
    let directory = directory();
    let output = Command::new("sh")
        // Just above the 64 MiB that a journal is laid out with; twice that where the shell counts in KiB.
        .args(["-c", "trap '' XFSZ; ulimit -f 131100; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test binary"))
        .args(["--exact", "store::tests::damage::child_writes_beyond_the_limit", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("child: writing has ended"), "{said}\n{output:?}");
    assert_eq!(open(&directory).get(&key(1, b"a")), Ok(Some(inline(&key(1, b"a"), origin(1).dot(1), b"1"))));
}

#[test]
fn child_writes_beyond_the_limit() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let mut store = FjallStore::open(Path::new(&directory)).expect("the store opens");
    let a = key(1, b"a");
    store.put(&a, &inline(&a, origin(1).dot(1), b"1"), None);
    store.commit(true).expect("commits");

    // Incompressible, since the journal packs long values: 160 MiB of it in all.
    let mut chunk = vec![0; 256 * 1024];
    blake3::Hasher::new().finalize_xof().fill(&mut chunk);
    let chunk = Bytes::from(chunk);
    for index in 0..640 {
        store.put_chunk(BlobAddress([1; 32]), index, chunk.clone());
    }
    store.put(&a, &inline(&a, origin(1).dot(2), b"2"), Some(origin(1).dot(1)));
    let error = store.commit(true).expect_err("the file may not grow");
    assert!(error.0.contains("File too large"), "{error}");
    assert_eq!(store.get(&a), Ok(Some(inline(&a, origin(1).dot(1), b"1"))), "reads go on");
    assert_eq!(store.reader().chunk(BlobAddress([1; 32]), 0), Ok(None));
    store.set_clock(Timestamp::from_ms(1));
    assert!(store.commit(true).is_err_and(|error| error.0.contains("restart the node")));
    println!("child: writing has ended");
}

/// Flushes happen in the background; a database whose workers have died of one may let writers wait for ever.
#[test]
fn a_flush_that_fails_ends_writing_and_hangs_nobody() {
    let directory = directory();
    let mut store = open(&directory);
    let a = key(1, b"a");
    store.put(&a, &inline(&a, origin(1).dot(1), b"1"), None);
    store.commit(true).expect("commits");
    for keyspace in std::fs::read_dir(directory.path().join("keyspaces")).expect("reads") {
        for part in std::fs::read_dir(keyspace.expect("reads").path()).expect("reads") {
            let path = part.expect("reads").path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("removes");
            }
        }
    }
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let chunk = Bytes::from(vec![1; 256 * 1024]);
        let error = (0..64_u32).find_map(|commit| {
            (0..64).for_each(|index| store.put_chunk(BlobAddress([1; 32]), commit * 64 + index, chunk.clone()));
            store.commit(false).err()
        });
        let read = store.get(&a);
        done.send((error, read.map(|entry| entry.is_some()))).expect("the test waits");
    });
    let (error, read) = ended.recv_timeout(Duration::from_secs(60)).expect("nobody hangs");
    assert!(error.as_ref().is_some_and(|error| error.0.contains("background")), "{error:?}");
    assert_eq!(read, Ok(true));
}

#[test]
fn a_killed_process_loses_nothing_it_was_told_is_committed() {
    let directory = directory();
    let mut child = Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--exact", "store::tests::damage::child_writes_until_killed", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    std::thread::sleep(Duration::from_millis(1500));
    child.kill().expect("SIGKILL");
    let output = child.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: u64 = said.lines().filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).max().unwrap_or(0);
    assert!(last > 10, "{said}");
    let store = open(&directory);
    for seq in 1..=last {
        let key = key(1, &seq.to_be_bytes());
        assert_eq!(
            store.get(&key).expect("reads"),
            Some(inline(&key, origin(1).dot(seq), b"value")),
            "{seq} of {last}"
        );
    }
    let seen = store.recover().expect("reads").versions.get(origin(1)).map(Seen::prefix);
    assert!(seen >= Some(last), "rows of one commit stay together");
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, last).len() as u64, last);
}

#[test]
fn child_writes_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let mut store = FjallStore::open(Path::new(&directory)).expect("the store opens");
    for seq in 1_u64.. {
        let key = key(1, &seq.to_be_bytes());
        store.put(&key, &inline(&key, origin(1).dot(seq), b"value"), None);
        store.set_seen(origin(1), &Seen::prefix_of(seq));
        store.commit(seq % 16 == 0).expect("commits");
        // A torn line would be a number too low, never one too high: the prefix is written first.
        println!("committed {seq}");
    }
}

#[test]
fn a_directory_in_use_of_a_newer_format_or_damaged_is_refused() {
    let directory = directory();
    let store = open(&directory);
    assert!(matches!(FjallStore::open(directory.path()), Err(OpenError::InUse { .. })));
    let set_format = |store: FjallStore, row: Option<Bytes>| {
        let mut batch = store.tables.db.batch().durability(Some(PersistMode::SyncAll));
        match row {
            Some(row) => batch.insert(&store.tables.meta, Tag::Format.key(b""), row),
            None => batch.remove(&store.tables.meta, Tag::Format.key(b"")),
        }
        batch.insert(&store.tables.meta, "other", "row");
        batch.commit().expect("commits");
    };
    set_format(store, Some(rows::encode_meta(&(rows::FORMAT + 1))));
    let newer = FjallStore::open(directory.path()).err().expect("refused");
    assert!(matches!(newer, OpenError::NewerFormat { found: 3, .. }), "{newer:?}");
    assert!(newer.to_string().contains("start a newer version"), "{newer}");

    let other = super::directory();
    set_format(open(&other), None);
    assert!(matches!(FjallStore::open(other.path()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_again() {
    let directory = directory();
    std::fs::write(directory.path().join("unfinished"), b"").expect("written");
    std::fs::write(directory.path().join("0.jnl"), b"").expect("written");
    std::fs::create_dir_all(directory.path().join("keyspaces/0")).expect("made");
    let mut store = open(&directory);
    let key = key(1, b"key");
    store.put(&key, &inline(&key, origin(1).dot(1), b"value"), None);
    store.commit(true).expect("commits");
    drop(store);
    assert!(!directory.path().join("unfinished").exists());
    assert!(open(&directory).get(&key).expect("reads").is_some(), "a finished one is left alone");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    for (file, at) in [("version", 0), ("0.jnl", 40), ("keyspaces/1/current", 0), ("keyspaces/2/current", 3)] {
        let directory = directory();
        let mut store = open(&directory);
        for seq in 1..50_u64 {
            let key = key(1, &seq.to_be_bytes());
            store.put(&key, &inline(&key, origin(1).dot(seq), b"value"), None);
            store.commit(false).expect("commits");
        }
        drop(store);
        let path = directory.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        bytes[at..].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).expect("writes");
        match FjallStore::open(directory.path()) {
            Err(OpenError::Corrupt { .. }) => {}
            // A journal is cut where it stops making sense: a lost tail, which peers repair.
            Ok(store) if file.ends_with(".jnl") => assert!(store.recover().is_ok()),
            other => panic!("{file}: {:?}", other.err()),
        }
    }
}

/// The database opens most of these as if nothing were: with tables left out, or in an older state.
#[test]
fn a_list_of_tables_that_was_changed_anywhere_is_refused() {
    let directory = directory();
    {
        let mut store = open(&directory);
        for seq in 1..50_u64 {
            let key = key(1, &seq.to_be_bytes());
            store.put(&key, &inline(&key, origin(1).dot(seq), b"value"), None);
        }
        store.commit(true).expect("commits");
    }
    drop(open(&directory));
    let mut lists = 0;
    for keyspace in std::fs::read_dir(directory.path().join("keyspaces")).expect("reads") {
        let keyspace = keyspace.expect("reads").path();
        let current = std::fs::read(keyspace.join("current")).expect("reads");
        let list = format!("v{}", u64::from_le_bytes(current[..8].try_into().expect("a number")));
        for file in ["current", &list] {
            let path = keyspace.join(file);
            let good = std::fs::read(&path).expect("reads");
            for at in (0..good.len()).step_by(good.len().div_ceil(40)) {
                let mut bad = good.clone();
                bad[at] ^= 1;
                std::fs::write(&path, &bad).expect("writes");
                let refused = FjallStore::open(directory.path()).err();
                assert!(
                    matches!(refused, Some(OpenError::Corrupt { .. })),
                    "{}, byte {at}: {refused:?}",
                    path.display()
                );
            }
            std::fs::write(&path, good).expect("writes");
            lists += 1;
        }
    }
    assert_eq!(lists, 10, "four keyspaces of ours and one of the database's, two files each");
    assert!(open(&directory).get(&key(1, &7_u64.to_be_bytes())).expect("reads").is_some());
}

/// Overwrites one page in the middle of a value of commit `torn` of three, in a journal laid out as after a crash.
fn reopen_with_a_torn_page(torn: u64) -> Result<FjallStore, OpenError> {
    let directory = directory();
    let mut store = open(&directory);
    for seq in 1..=3_u64 {
        // Incompressible, or the packed value would not even parse.
        let mut value = vec![0; 20_000];
        blake3::Hasher::new().update(&seq.to_be_bytes()).finalize_xof().fill(&mut value);
        let key = key(1, &seq.to_be_bytes());
        store.put(&key, &inline(&key, origin(1).dot(seq), &value), None);
        store.commit(true).expect("commits");
    }
    drop(store);
    let path = directory.path().join("0.jnl");
    let mut bytes = std::fs::read(&path).expect("reads");
    let mut page = vec![0; 10_000];
    blake3::Hasher::new().update(&torn.to_be_bytes()).finalize_xof().fill(&mut page);
    let at = bytes.windows(64).position(|window| window == &page[9_000..9_064]).expect("the value");
    bytes[at..at + 4096].fill(0);
    std::fs::write(&path, bytes).expect("writes");
    FjallStore::open(directory.path())
}

#[test]
fn a_torn_page_costs_the_journal_its_end_and_not_the_node_its_data() {
    for torn in 1..=3 {
        let mut store = reopen_with_a_torn_page(torn).expect("opens");
        for seq in 1..=3_u64 {
            let found = store.get(&key(1, &seq.to_be_bytes())).expect("reads");
            assert_eq!(found.is_some(), seq < torn, "{seq} with {torn} torn");
        }
        store.set_clock(Timestamp::from_ms(1));
        store.commit(true).expect("goes on");
    }
}

#[test]
fn a_path_that_is_a_file_is_an_error() {
    let directory = directory();
    let path = directory.path().join("file");
    std::fs::write(&path, b"x").expect("writes");
    assert!(matches!(FjallStore::open(&path), Err(OpenError::Io { .. })));
}

#[test]
fn rows_that_cannot_be_read_count_as_absent_and_are_counted_once() {
    let directory = directory();
    let mut store = open(&directory);
    let (a, b) = (key(1, b"a"), key(1, b"b"));
    store.put(&a, &inline(&a, origin(1).dot(1), b"1"), None);
    store.put(&b, &inline(&b, origin(1).dot(2), b"2"), None);
    store.set_seen(origin(1), &Seen::prefix_of(2));
    store.commit(false).expect("commits");
    store.tables.data.insert(a.as_bytes().clone(), &b"nonsense"[..]).expect("writes");
    store.tables.meta.insert(Tag::Pending.key(b"short"), &b"\x09"[..]).expect("writes");
    let reader = store.reader();
    for _ in 0..3 {
        assert_eq!(store.get(&a), Ok(None));
        assert_eq!(reader.get(&a), Ok(None));
        assert_eq!(reader.scan(NamespaceId([1; 16]), b"", None, 9).expect("reads").len(), 1);
        assert_eq!(written_by(&store.snapshot(), origin(1), 1, 9).len(), 1);
        let mut count = 0;
        store.for_each_hash(&mut |_, _| count += 1).expect("reads");
        assert_eq!(count, 1);
    }
    assert_eq!(reader.corrupt_rows(), 1);
    assert!(store.recover().expect("reads").pending.is_empty());
    assert_eq!(reader.corrupt_rows(), 2);

    // A peer brings the entry back; the old dot's row has stayed and must not speak for it.
    let back = inline(&a, origin(2).dot(5), b"1");
    store.put(&a, &back, None);
    store.commit(false).expect("commits");
    assert_eq!(store.get(&a), Ok(Some(back.clone())));
    assert_eq!(written_by(&store.snapshot(), origin(1), 1, 1), []);
    assert_eq!(written_by(&store.snapshot(), origin(2), 1, 9), [(5, a, back)]);
}

/// Tables of a directory's entries, as files.
fn tables_of(directory: &TempDir) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("tables"))
                && path.metadata().is_ok_and(|metadata| metadata.len() > 4 << 20)
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_rotten_block_costs_its_rows_and_not_the_node() {
    const ROWS: u64 = 800;
    let directory = directory();
    let keys: Vec<Key> = (0..ROWS).map(|number| key(1, &number.to_be_bytes())).collect();
    let value = |number: u64| {
        let mut bytes = vec![0; 40_000];
        blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    {
        let mut store = open(&directory);
        for (number, key) in (0..).zip(&keys) {
            store.put(key, &inline(key, origin(1).dot(number + 1), &value(number)), None);
            store.commit(false).expect("commits");
        }
        // Flushed in the background, the first ones for sure.
        for _ in 0..500 {
            if !tables_of(&directory).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        store.syncer().sync().expect("syncs");
    }
    let table = tables_of(&directory).into_iter().min().expect("a table");
    let mut bytes = std::fs::read(&table).expect("readable");
    // Two places, far apart: what lies between must be found, too.
    for place in [bytes.len() / 5, bytes.len() / 2] {
        bytes[place] ^= 0x20;
    }
    std::fs::write(&table, bytes).expect("writable");

    let mut store = open(&directory);
    let held: Vec<bool> = keys.iter().map(|key| store.get(key).expect("reads").is_some()).collect();
    let lost: Vec<u64> = (0..).zip(&held).filter(|(_, held)| !**held).map(|(number, _)| number).collect();
    assert!((1..=4).contains(&lost.len()), "{lost:?}");
    let reader = store.reader();
    assert!(matches!(reader.held(&keys[lost[0] as usize]), Ok(Held::Damaged)));
    let mut hashes = 0;
    store.for_each_hash(&mut |_, _| hashes += 1).expect("goes around it");
    assert_eq!(hashes, ROWS - lost.len() as u64);
    let mut after = None;
    let mut paged = Vec::new();
    loop {
        let rows = store.rows(after.as_ref(), 100).expect("goes around it");
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        paged.extend(rows.into_iter().map(|(key, _)| key));
    }
    let expected: Vec<Key> = keys.iter().zip(&held).filter(|(_, held)| **held).map(|(key, _)| key.clone()).collect();
    assert_eq!(paged, expected);
    let mut told = Vec::new();
    let mut damaged = |key| {
        told.push(key);
        ControlFlow::Continue(())
    };
    let namespace = NamespaceId([1; 16]);
    reader
        .visit_all(namespace, b"", None, &mut |_, _| ControlFlow::Continue(()), &mut damaged)
        .expect("goes around it");
    assert_eq!(told, lost.iter().map(|number| keys[*number as usize].clone()).collect::<Vec<_>>());

    for number in &lost {
        let key = &keys[*number as usize];
        store.put(key, &inline(key, origin(1).dot(number + 1), &value(*number)), None);
    }
    store.commit(true).expect("commits");
    assert!(keys.iter().all(|key| store.get(key).expect("reads").is_some()), "what is put again is readable");
}
