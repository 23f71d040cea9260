//! Each bound that docs/SECURITY.md promises has a test that goes beyond it. Reads the table and the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A row of the table, and the tests that go beyond it: file and function.
const TESTED: &[(&str, &[(&str, &str)])] = &[
    (
        "headers of a request",
        &[
            ("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name"),
            ("src/api/tests/wire.rs", "oversized_headers_are_refused"),
        ],
    ),
    (
        "time for the headers, and idle connections",
        &[
            ("tests/it/slow.rs", "slow_clients_are_told_so_in_time_and_hold_nobody_up"),
            ("src/api/headers.rs", "one_byte_after_the_other_is_no_progress_and_a_body_is_not_judged"),
        ],
    ),
    (
        "connections",
        &[("src/api/places.rs", "whoever_is_idle_for_longest_makes_room_and_nobody_who_is_being_answered")],
    ),
    ("connections that wait to be accepted", &[("src/api/listen.rs", "a_burst_of_clients_waits_in_line")]),
    (
        "requests at a time on one HTTP/2 connection",
        &[("src/api/tests/wire.rs", "an_http2_connection_has_so_many_requests_at_a_time")],
    ),
    (
        "time between two pieces of a body, and for all of it",
        &[
            ("tests/it/slow.rs", "slow_clients_are_told_so_in_time_and_hold_nobody_up"),
            ("src/api/body.rs", "a_body_has_half_a_minute_for_each_piece_and_ten_minutes_in_all"),
        ],
    ),
    ("time that a client reads nothing of an answer", &[("src/api/stall.rs", "only_a_write_without_progress_fails")]),
    ("key", &[("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name")]),
    (
        "value, metadata",
        &[
            ("src/kv/tests/values.rs", "the_largest_value_fits_and_one_byte_more_does_not"),
            ("src/api/tests/values.rs", "bodies_of_unknown_length_are_taken_up_to_the_limit"),
        ],
    ),
    (
        "form: parts, all but the value, a part but the value",
        &[("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name")],
    ),
    (
        "bulk: pairs, body, bodies over 1 MiB at a time",
        &[
            ("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name"),
            ("src/api/tests/bulk.rs", "ten_thousand_pairs_and_large_bodies_fit"),
            ("src/api/tests/bulk.rs", "a_bulk_body_over_the_limit_is_refused_before_it_is_sent"),
            ("src/api/tests/bulk.rs", "four_large_bodies_are_read_at_a_time_and_small_ones_never_wait"),
        ],
    ),
    ("JSON", &[("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name")]),
    (
        "cursor, bookmark, position of a feed",
        &[
            ("src/api/keys.rs", "any_text_is_a_cursor_or_refused"),
            ("src/api/tests/limits.rs", "what_is_too_long_too_deep_or_too_many_is_refused_by_name"),
        ],
    ),
    ("requests that wait for the driver", &[("src/node/handle.rs", "a_full_mailbox_has_senders_wait")]),
    (
        "requests that wait for acknowledgements or a bookmark",
        &[("src/replica/tests/sessions.rs", "who_would_wait_beyond_the_bound_is_told_so")],
    ),
    (
        "change feeds, tails",
        &[
            ("src/api/tests/changes.rs", "feeds_are_bounded_and_end_with_the_server"),
            ("src/worker/tails.rs", "watchers_are_bounded"),
        ],
    ),
    (
        "failed logins from an address (IPv6: a /64)",
        &[("src/api/tests/credentials.rs", "failed_logins_are_counted_and_limited_and_who_knows_a_token_gets_in")],
    ),
    (
        "requests for one Worker at a time",
        &[("src/front/crowd.rs", "a_script_has_so_many_visitors_at_a_time_and_others_have_theirs")],
    ),
    ("QUIC handshakes at a time", &[("src/net/tests/floods.rs", "handshakes_that_nobody_finishes_keep_no_member_out")]),
    (
        "newcomers that join at a time, invitations",
        &[
            ("src/net/tests/joins.rs", "joins_at_once_are_bounded"),
            ("src/net/invite.rs", "bounded_and_expired_ones_make_room"),
            ("src/net/tests/floods.rs", "a_crowd_with_invitations_that_open_nothing_keeps_no_newcomer_out"),
        ],
    ),
    (
        "a frame from a peer, frames that wait",
        &[
            ("src/net/tests/links.rs", "a_peer_that_breaks_the_framing_is_disconnected"),
            ("src/net/tests/links.rs", "a_slow_consumer_holds_back_one_class_of_one_peer_only"),
        ],
    ),
    ("backups of a node at a time", &[("tests/it/backup.rs", "one_backup_at_a_time")]),
];

#[test]
fn each_bound_of_the_documentation_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let text = read("docs/SECURITY.md");
    let (_, section) = text.split_once("## Bounds for clients and strangers").expect("the section");
    let rows: BTreeSet<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .collect();
    let tested: BTreeSet<&str> = TESTED.iter().map(|(row, _)| *row).collect();
    let untested: Vec<_> = rows.difference(&tested).collect();
    let unknown: Vec<_> = tested.difference(&rows).collect();
    assert!(untested.is_empty() && unknown.is_empty(), "without a test: {untested:?}; not in the table: {unknown:?}");
    assert!(rows.len() > 15);
    for (row, tests) in TESTED {
        for (file, test) in *tests {
            assert!(read(file).contains(&format!("fn {test}(")), "{row}: {file} has no test {test}");
        }
    }
}
