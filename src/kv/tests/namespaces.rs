//! Namespaces and tokens.

use super::*;
use crate::replica::Refusal;

#[tokio::test]
async fn namespaces_live_and_die() {
    let node = Node::start();
    let kv = &node.kv;
    let other = AccountId([0xbb; 16]);
    assert_eq!(kv.namespaces(ACCOUNT), Ok(vec![]));
    let one = kv.create_namespace(ACCOUNT, "one").await.expect("creates");
    let two = kv.create_namespace(ACCOUNT, "two").await.expect("creates");
    let theirs = kv.create_namespace(other, "one").await.expect("titles are unique per account only");
    assert!(one.id != two.id && one.id != theirs.id);
    let mut both = vec![one.clone(), two.clone()];
    both.sort_by_key(|namespace| namespace.id);
    assert_eq!(kv.namespaces(ACCOUNT), Ok(both));
    assert_eq!(kv.namespace(ACCOUNT, one.id), Ok(one.clone()));
    assert_eq!(kv.namespace(other, one.id), Err(KvError::NamespaceNotFound));
    assert_eq!(kv.namespace(ACCOUNT, NamespaceId::TOKENS), Err(KvError::NamespaceNotFound));
    assert_eq!(kv.create_namespace(ACCOUNT, "one").await, Err(KvError::TitleTaken));

    assert_eq!(kv.rename_namespace(ACCOUNT, one.id, "two").await, Err(KvError::TitleTaken));
    assert_eq!(kv.rename_namespace(other, one.id, "mine").await, Err(KvError::NamespaceNotFound));
    let same = kv.rename_namespace(ACCOUNT, one.id, "one").await;
    assert_eq!(same, Ok(one.clone()), "a title doesn't stand in its own way");
    let renamed = kv.rename_namespace(ACCOUNT, one.id, "uno").await.expect("renames");
    assert_eq!((renamed.id, &renamed.title[..]), (one.id, "uno"));
    assert_eq!(kv.namespace(ACCOUNT, one.id), Ok(renamed));

    kv.put(one.id, b"key", put("x")).await.expect("writes");
    assert_eq!(kv.delete_namespace(other, one.id).await, Err(KvError::NamespaceNotFound));
    kv.delete_namespace(ACCOUNT, one.id).await.expect("deletes");
    assert_eq!(kv.namespaces(ACCOUNT), Ok(vec![two]));
    assert_eq!(kv.namespace(ACCOUNT, one.id), Err(KvError::NamespaceNotFound));
    assert_eq!(kv.put(one.id, b"key", put("x")).await, Err(KvError::NamespaceNotFound));
    assert_eq!(kv.upload(one.id, b"key").await.err(), Some(KvError::NamespaceNotFound));
    assert_eq!(kv.delete_namespace(ACCOUNT, one.id).await, Err(KvError::NamespaceNotFound));
    assert_eq!(kv.rename_namespace(ACCOUNT, one.id, "again").await, Err(KvError::NamespaceNotFound));
    let again = kv.create_namespace(ACCOUNT, "one").await.expect("the title is free");
    assert_ne!(again.id, one.id);
}

#[tokio::test]
async fn a_rename_from_elsewhere_does_not_bring_a_deleted_namespace_back() {
    let node = Node::start();
    let kv = &node.kv;
    let one = kv.create_namespace(ACCOUNT, "one").await.expect("creates");
    kv.delete_namespace(ACCOUNT, one.id).await.expect("deletes");
    // What a node that had not heard of the deletion may send later.
    kv.write_namespace(&one, 1).await.expect("writes");
    assert_eq!(kv.namespaces(ACCOUNT), Ok(vec![]));
    assert_eq!(kv.namespace(ACCOUNT, one.id), Err(KvError::NamespaceNotFound));
    assert_eq!(kv.put(one.id, b"key", put("x")).await, Err(KvError::NamespaceNotFound));
}

#[tokio::test]
async fn titles_are_checked_and_stay_unique_when_created_at_once() {
    let node = Node::start();
    let kv = &node.kv;
    assert_eq!(kv.create_namespace(ACCOUNT, "").await, Err(KvError::InvalidTitle { len: 0 }));
    let long = "t".repeat(TITLE_LEN_MAX + 1);
    assert_eq!(kv.create_namespace(ACCOUNT, &long).await, Err(KvError::InvalidTitle { len: TITLE_LEN_MAX + 1 }));
    kv.create_namespace(ACCOUNT, &long[1..]).await.expect("creates");
    let racing: Vec<_> = (0..8)
        .map(|_| {
            let kv = kv.clone();
            tokio::spawn(async move { kv.create_namespace(ACCOUNT, "same").await })
        })
        .collect();
    let mut created = 0;
    for task in racing {
        match task.await.expect("no panic") {
            Ok(_) => created += 1,
            Err(error) => assert_eq!(error, KvError::TitleTaken),
        }
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn tokens_open_their_account_until_they_are_revoked() {
    let node = Node::start();
    let kv = &node.kv;
    let secret = "s3cr3t".repeat(8);
    assert_eq!(kv.authenticate(&secret), None);
    let new =
        |name: &str, expires_ms| NewToken { account: ACCOUNT, name: name.into(), grants: Grants::all(), expires_ms };
    assert_eq!(kv.add_token("too short", new("ci", 0)).await, Err(KvError::WeakToken));
    let id = kv.add_token(&secret, new("ci", 0)).await.expect("adds").id;
    assert_eq!(kv.authenticate(&secret).map(|token| token.account), Some(ACCOUNT));
    assert_eq!(kv.authenticate(&secret[1..]), None);
    let tokens = kv.tokens(ACCOUNT).expect("reads");
    assert_eq!((tokens.len(), tokens[0].id, &tokens[0].name[..]), (1, id, "ci"));
    assert_eq!(kv.tokens(AccountId([1; 16])), Ok(vec![]));

    let (store, _) = {
        assert_eq!(kv.revoke_token(AccountId([1; 16]), id).await, Err(KvError::TokenNotFound), "another's");
        kv.revoke_token(ACCOUNT, id).await.expect("revokes");
        assert_eq!(kv.authenticate(&secret), None);
        assert_eq!(kv.tokens(ACCOUNT), Ok(vec![]));
        assert_eq!(kv.add_token(&secret, new("again", 0)).await, Err(KvError::TokenRevoked), "for good");
        let other = "s3cr3tt".repeat(8);
        kv.add_token(&other, new("short-lived", kv.now_ms() + 50)).await.expect("adds");
        assert!(kv.authenticate(&other).is_some());
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        assert_eq!(kv.authenticate(&other), None, "expired");
        node.stop()
    };
    let mut found = false;
    for (_, entry) in store.reader().scan(NamespaceId::TOKENS, b"", None, 9).expect("reads") {
        let row = entry.encode();
        found = true;
        assert!(!row.windows(6).any(|window| window == b"s3cr3t"), "the secret is stored nowhere");
    }
    assert!(found);
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let node = Node::start();
    let ns = namespace(&node).await;
    node.kv.put(ns, b"key", put(bytes(CHUNK_LEN * 2))).await.expect("writes");
    let directory = node.stop_keeping_the_directory();
    let store = crate::store::FjallStore::open(directory.path()).expect("reopens");
    let (handle, _mailbox) = crate::node::mailbox(store.reader(), crate::node::MachineClock::start(0));
    let kv = Kv::new(handle, Arc::new(PlainSeal), [8; 32]);
    assert_eq!(kv.namespace(ACCOUNT, ns).map(|namespace| namespace.title), Ok("test".into()));
    assert_eq!(read(&kv, ns, b"key").await, Some(bytes(CHUNK_LEN * 2)));
}

#[test]
fn every_refusal_is_a_sentence() {
    for refusal in [Refusal::Superseded, Refusal::Evicted, Refusal::Frozen, Refusal::ClockFenced(7), Refusal::TooLarge]
    {
        let text = KvError::from(refusal).to_string();
        assert!(text.ends_with('.') || text.ends_with(')'), "{text}");
    }
}

#[test]
fn account_ids_read_back() {
    assert_eq!(ACCOUNT.to_string().parse(), Ok(ACCOUNT));
    assert_eq!("x".parse::<AccountId>(), Err(InvalidAccountId));
}
