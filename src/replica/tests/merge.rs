//! The laws of merging: commutative, associative, idempotent, also where a node breaks the rules.

use bytes::Bytes;
use proptest::prelude::*;

use crate::replica::*;

fn key() -> Key {
    Key::new(NamespaceId([3; 16]), b"k").expect("a short key")
}

/// Few distinct markers and contents, so that ties and conflicts happen often.
fn entries() -> impl Strategy<Value = Entry> {
    (0..3u64, 1..4u64, 0..3u64, 0..3u64, 0..3u8, 0..2u64).prop_map(|(node, seq, time, writer, content, expire_ms)| {
        let origin = |node| Origin { node: NodeId(node), incarnation: Incarnation(1) };
        let value = match content {
            0 => Value::Tombstone,
            byte => Value::Inline(Bytes::from(vec![byte])),
        };
        let content = Content { expire_ms, metadata: Bytes::new(), value };
        let marker = Marker { time: Timestamp(time), origin: origin(writer) };
        Entry::new(&key(), origin(node).dot(seq), Timestamp(time), marker, content)
    })
}

fn merged(mut left: Entry, right: &Entry) -> Entry {
    left.merge(right.clone());
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn laws(a in entries(), b in entries(), c in entries()) {
        prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
        prop_assert_eq!(merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b.clone(), &c)));
        prop_assert_eq!(merged(a.clone(), &a), a.clone());
        let winner = merged(a.clone(), &b);
        prop_assert!(winner.marker() == a.marker().max(b.marker()));
    }

    #[test]
    fn equal_markers_with_other_contents_are_reported(a in entries(), b in entries()) {
        let mut held = a.clone();
        let outcome = held.merge(b.clone());
        let was_reissued = |entry: &Entry| entry.dot.origin != entry.marker().origin;
        let is_deleted = |entry: &Entry| entry.content().value == Value::Tombstone;
        // A write that was issued again after it had expired.
        let is_spent = (was_reissued(&a) || was_reissued(&b))
            && (is_deleted(&a) || is_deleted(&b))
            && a.content().expire_ms != 0
            && a.content().expire_ms == b.content().expire_ms;
        let conflict = a.marker() == b.marker() && a.content() != b.content() && !is_spent;
        prop_assert_eq!(matches!(outcome, Merge::Conflict { .. }), conflict);
        if let Merge::Conflict { won } = outcome {
            prop_assert_eq!(won, b.hash > a.hash);
            prop_assert_eq!(held.hash, a.hash.max(b.hash));
        }
    }

    #[test]
    fn dropping_the_value_of_an_expired_entry_changes_no_outcome(a in entries(), b in entries()) {
        prop_assert_eq!(a.dropped().hash, a.hash);
        prop_assert_eq!(a.dropped().loses_to(&b), a.loses_to(&b));
        let record = a.dropped().to_record(&key());
        match a.content().expire_ms {
            0 => prop_assert!(Entry::decode(&key(), &record.body).is_err(), "it never expires"),
            _ => prop_assert_eq!(Entry::decode(&key(), &record.body), Ok(a.dropped())),
        }
    }
}
