//! Values: sizes, metadata, expiry, uploads, bulk writes, listings, failures.

use super::driver::Mode;
use super::*;
use crate::replica::{Refusal, Store};

#[tokio::test]
async fn values_of_all_sizes_read_back() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    let inline = INLINE_LEN_MAX;
    for len in [0, 1, inline - 1, inline, inline + 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
        let value = bytes(len);
        kv.put(ns, b"key", put(value.clone())).await.expect("writes");
        let found = kv.get(ns, b"key").await.expect("reads").expect("a value");
        assert_eq!(matches!(found.value, Value::Inline(_)), len <= inline, "{len}");
        assert_eq!(read(kv, ns, b"key").await, Some(value.clone()), "{len}");

        let mut upload = kv.upload(ns, b"uploaded").await.expect("begins");
        let mut rest = value.clone();
        while !rest.is_empty() {
            upload.write(rest.split_to(rest.len().min(100_001))).await.expect("takes");
        }
        upload.finish(None, None).await.expect("writes");
        assert_eq!(read(kv, ns, b"uploaded").await, Some(value), "{len}");
    }
    let (_, open) = node.stop();
    assert_eq!(open, []);
}

#[tokio::test]
async fn the_largest_value_fits_and_one_byte_more_does_not() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    let value = bytes(VALUE_LEN_MAX);
    kv.put(ns, b"key", put(value.clone())).await.expect("writes");
    assert!(read(kv, ns, b"key").await.is_some_and(|read| read == value), "equal");

    let too_large = KvError::ValueTooLarge { len: VALUE_LEN_MAX as u64 + 1 };
    assert_eq!(kv.put(ns, b"key", put(bytes(VALUE_LEN_MAX + 1))).await, Err(too_large.clone()));
    let mut upload = kv.upload(ns, b"key").await.expect("begins");
    upload.write(value.clone()).await.expect("takes");
    assert_eq!(upload.write(Bytes::from_static(b"x")).await, Err(too_large));
    assert_eq!(upload.finish(None, None).await, Err(KvError::UploadBroken));
    assert!(read(kv, ns, b"key").await.is_some_and(|read| read == value), "the old value stays");
    let (_, open) = node.stop();
    assert_eq!(open, [], "the failed upload's chunks are given up");
}

#[tokio::test]
async fn an_upload_dropped_midway_leaves_nothing() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    kv.put(ns, b"key", put("old")).await.expect("writes");
    let mut upload = kv.upload(ns, b"key").await.expect("begins");
    upload.write(bytes(7 * CHUNK_LEN)).await.expect("takes");
    let address = upload.address();
    drop(upload);
    // Abandoning too much metadata: chunks are there, the write is never sent.
    let mut upload = kv.upload(ns, b"key").await.expect("begins");
    upload.write(bytes(CHUNK_LEN)).await.expect("takes");
    let second = upload.address();
    let metadata = Some(bytes(METADATA_LEN_MAX + 1));
    assert_eq!(upload.finish(metadata, None).await, Err(KvError::MetadataTooLarge { len: METADATA_LEN_MAX + 1 }));
    assert_eq!(read(kv, ns, b"key").await, Some("old".into()));
    let (store, open) = node.stop();
    assert_eq!(open, []);
    for address in [address, second] {
        assert_eq!(store.chunks_held(address, 8), Ok(vec![false; 8]));
    }
}

#[tokio::test]
async fn a_blob_is_read_to_its_end_while_it_is_overwritten() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    let value = bytes(3 * CHUNK_LEN + 5);
    kv.put(ns, b"key", put(value.clone())).await.expect("writes");
    let Some(Found { value: Value::Blob(mut blob), .. }) = kv.get(ns, b"key").await.expect("reads") else {
        panic!("a blob")
    };
    let mut read = blob.next().await.expect("a chunk").expect("a chunk").to_vec();
    kv.delete(ns, b"key").await.expect("deletes");
    assert!(kv.get(ns, b"key").await.expect("reads").is_none());
    while let Some(chunk) = blob.next().await {
        read.extend_from_slice(&chunk.expect("a chunk"));
    }
    assert_eq!(read, value);
}

#[tokio::test]
async fn metadata_and_expiration_read_back() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    let metadata = Bytes::from(format!("\"{}\"", "m".repeat(METADATA_LEN_MAX - 2)));
    for len in [3, INLINE_LEN_MAX + 1] {
        let soon = node.kv.now_ms() / 1000 + 100;
        let put = Put { value: bytes(len), metadata: Some(metadata.clone()), expiration: Some(soon) };
        kv.put(ns, b"key", put).await.expect("writes");
        let found = kv.get(ns, b"key").await.expect("reads").expect("a value");
        assert_eq!((found.metadata.as_ref(), found.expiration), (Some(&metadata), Some(soon)));
    }
    let page = kv.list(ns, b"", None, 10).await.expect("lists");
    assert_eq!(page.keys[0].metadata, Some(metadata));

    let too_long = Put { metadata: Some(bytes(METADATA_LEN_MAX + 1)), ..Put::default() };
    let error = KvError::MetadataTooLarge { len: METADATA_LEN_MAX + 1 };
    assert_eq!(kv.put(ns, b"key", too_long.clone()).await, Err(error.clone()));
    let large = Put { value: bytes(INLINE_LEN_MAX + 1), ..too_long };
    assert_eq!(kv.put(ns, b"key", large).await, Err(error));

    for expiration in [0, 1, node.kv.now_ms() / 1000 - 1] {
        let put = Put { expiration: Some(expiration), ..put("gone") };
        kv.put(ns, b"key", put).await.expect("writes");
        assert!(kv.get(ns, b"key").await.expect("reads").is_none(), "{expiration}");
    }
    kv.put(ns, b"key", Put { expiration: Some(u64::MAX), ..put("stays") }).await.expect("writes");
    assert_eq!(read(kv, ns, b"key").await, Some("stays".into()));
}

#[tokio::test]
async fn keys_are_checked() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    for bad in [&b""[..], b".", b"..", b"\xff", &[b'k'; KEY_LEN_MAX + 1]] {
        let expect = |error: Option<KvError>| match error {
            Some(KvError::InvalidKey(_)) => assert!(bad.len() <= KEY_LEN_MAX),
            Some(KvError::KeyTooLong { len }) => assert_eq!(len, KEY_LEN_MAX + 1),
            other => panic!("{other:?}"),
        };
        expect(kv.put(ns, bad, put("x")).await.err());
        expect(kv.get(ns, bad).await.err());
        expect(kv.delete(ns, bad).await.err());
        expect(kv.upload(ns, bad).await.err());
        expect(kv.put_many(ns, vec![(Bytes::copy_from_slice(bad), put("x"))]).await.remove(0).err());
    }
    for good in [&b"..."[..], b"a/b c%\0", "é".as_bytes(), &[b'k'; KEY_LEN_MAX]] {
        kv.put(ns, good, put("x")).await.expect("writes");
        assert_eq!(read(kv, ns, good).await, Some("x".into()));
    }
    let system = NamespaceId::TOKENS;
    assert_eq!(kv.put(system, b"key", put("x")).await, Err(KvError::NamespaceNotFound));
    assert_eq!(kv.get(system, b"key").await.err(), Some(KvError::NamespaceNotFound));
    assert_eq!(kv.delete(system, b"key").await, Err(KvError::NamespaceNotFound));
    assert_eq!(kv.list(system, b"", None, 1).await, Err(KvError::NamespaceNotFound));
    assert_eq!(kv.put(NamespaceId([9; 16]), b"key", put("x")).await, Err(KvError::NamespaceNotFound));
}

#[tokio::test]
async fn bulk_writes_keep_their_order() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    let mut pairs: Vec<_> = (0..1000).map(|n| (Bytes::from(format!("key{n}")), put(format!("value{n}")))).collect();
    pairs[3].0 = Bytes::from_static(b"..");
    pairs[500].1 = put(bytes(INLINE_LEN_MAX + 1));
    pairs[501] = (pairs[500].0.clone(), put("the later one"));
    pairs[502].1 = put(bytes(VALUE_LEN_MAX + 1));
    let results = kv.put_many(ns, pairs).await;
    assert_eq!(results.len(), 1000);
    for (at, result) in results.iter().enumerate() {
        match at {
            3 => assert!(matches!(result, Err(KvError::InvalidKey(_)))),
            502 => assert!(matches!(result, Err(KvError::ValueTooLarge { .. }))),
            _ => assert_eq!(result, &Ok(())),
        }
    }
    assert_eq!(read(kv, ns, b"key999").await, Some("value999".into()));
    assert_eq!(read(kv, ns, b"key500").await, Some("the later one".into()));
    let gone = kv.delete_many(ns, vec!["key999".into(), "".into(), "never there".into()]).await;
    assert!(matches!(gone[..], [Ok(()), Err(KvError::InvalidKey(_)), Ok(())]));
    assert_eq!(read(kv, ns, b"key999").await, None);
    let nowhere = kv.put_many(NamespaceId([9; 16]), vec![("a".into(), put("x")); 2]).await;
    assert_eq!(nowhere, vec![Err(KvError::NamespaceNotFound); 2]);
}

#[tokio::test]
async fn listings_are_ordered_pages_of_what_is_visible() {
    let node = Node::start();
    let (kv, ns) = (&node.kv, namespace(&node).await);
    for n in 0..40 {
        let name = format!("a{n:02}");
        let expiration = (n % 4 == 1).then_some(1);
        kv.put(ns, name.as_bytes(), Put { expiration, ..put("x") }).await.expect("writes");
        if n % 4 == 2 {
            kv.delete(ns, name.as_bytes()).await.expect("deletes");
        }
    }
    for name in ["A", "a", "b", "é"] {
        kv.put(ns, name.as_bytes(), put("x")).await.expect("writes");
    }
    let visible: Vec<String> = (0..40).filter(|n| n % 4 == 0 || n % 4 == 3).map(|n| format!("a{n:02}")).collect();
    let names = |page: &Page| -> Vec<String> {
        page.keys.iter().map(|listed| String::from_utf8(listed.name.to_vec()).expect("UTF-8")).collect()
    };

    let all = kv.list(ns, b"", None, 1000).await.expect("lists");
    let mut expected = vec!["A".to_owned(), "a".to_owned()];
    expected.extend(visible.clone());
    expected.extend(["b".to_owned(), "é".to_owned()]);
    assert_eq!((names(&all), &all.next), (expected, &None));

    let (mut pages, mut after, mut count) = (Vec::new(), None::<Bytes>, 0);
    loop {
        let page = kv.list(ns, b"a0", after.as_deref(), 2).await.expect("lists");
        pages.extend(names(&page));
        count += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, visible.iter().filter(|name| name.starts_with("a0")).cloned().collect::<Vec<_>>());
    assert_eq!(count, 3);
    // Exactly as many as there are: that is the end, and the page says so.
    assert_eq!(kv.list(ns, b"a0", None, 5).await.expect("lists").next, None);
    assert_eq!(kv.list(ns, b"a1", Some(b"b"), 5).await.expect("lists"), Page::default());
    assert_eq!(kv.list(ns, b"nothing", None, 5).await.expect("lists"), Page::default());
    assert_eq!(kv.list(ns, b"", None, 0).await.expect("lists").keys.len(), 1);
}

#[tokio::test]
async fn a_failed_disk_makes_the_node_read_only() {
    let node = Node::start_with(Mode::DiskFull);
    let (kv, ns) = (&node.kv, namespace(&node).await);
    kv.put(ns, b"key", put("old")).await.expect("writes");
    for _ in 0..2 {
        let error = kv.put(ns, b"key", put("new")).await.expect_err("the disk is full");
        assert!(matches!(&error, KvError::ReadOnly(why) if why.contains("no space left")), "{error:?}");
    }
    let bulk = kv.put_many(ns, vec![("key".into(), put("new")); 3]).await;
    assert!(bulk.iter().all(|result| matches!(result, Err(KvError::ReadOnly(_)))));
    assert_eq!(read(kv, ns, b"key").await, Some("old".into()));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (refusal, expected) in [
        (Refusal::ClockFenced(-61_000), KvError::ClockFenced("61000 ms behind its peers".into())),
        (Refusal::NamespaceDeleted, KvError::NamespaceNotFound),
        (Refusal::Overloaded, KvError::Overloaded),
    ] {
        let node = Node::start_with(Mode::Refuses(refusal));
        let (kv, ns) = (&node.kv, namespace(&node).await);
        assert_eq!(kv.put(ns, b"key", put("x")).await, Err(expected.clone()));
        assert_eq!(kv.put(ns, b"key", put(bytes(CHUNK_LEN))).await, Err(expected.clone()));
        assert_eq!(kv.delete(ns, b"key").await, Err(expected));
        let (_, open) = node.stop();
        assert_eq!(open, [], "what a refused write referred to is given up");
    }
}

#[tokio::test]
async fn a_silent_driver_is_a_timeout_and_a_stopped_one_a_shutdown() {
    let node = Node::start_with(Mode::Hangs);
    tokio::time::pause();
    let error = node.kv.create_namespace(ACCOUNT, "title").await.expect_err("no answer");
    assert_eq!(error, KvError::Timeout);

    let store = crate::store::FjallStore::open(tempfile::tempdir().expect("a directory").path()).expect("a store");
    let (handle, mailbox) = crate::node::mailbox(store.reader(), crate::node::MachineClock::start(0));
    drop(mailbox);
    let kv = Kv::new(handle, Arc::new(PlainSeal), [1; 32]);
    assert_eq!(kv.create_namespace(ACCOUNT, "title").await, Err(KvError::ShuttingDown));
}
