//! The simulator as a user has it: the program, its exit codes, its seeds; and each promise broken on purpose.

use std::process::{Command, Output};

use starling::replica::Sabotage;
use starling_sim::sabotage;
use starling_sim::swarm::{draw, drawn, run, search};

/// Seeds whose worlds once broke a promise. What each showed first:
///
/// - 0, 5, 28: a sender whose intervals were over their bound left out what it held beyond them;
/// - 40: the same for a record that still waited for its blob when its session was joined;
/// - 9, 20: watermarks stood still in a flock that wrote nothing;
/// - 114: a node that restarted with a slow clock was superseded by its own former process, for good;
/// - 2, 22: chunks that came late were thrown away, so on a slow way none ever came in time;
/// - 62, 234: a session stood still for blobs that nobody had any more;
/// - 109, 172: a process that started with a clock set back wrote within what its former one had promised in beats;
/// - 236, 763: a watermark stood still for writes that were lost with a directory, though all agreed on what there was;
/// - 3247, 101389: the watermark of a node that had just joined spoke of lives that its peers had folded before it came;
/// - 1002689: two of three that were put back agreed, and took what the third said for lost;
/// - 93: who had just joined and knew of nobody told a follower of the change feed that it had everything;
/// - 458: the same of one that was let in by a node that knew of nobody yet;
/// - 904: a node that was let in by one whose clock had been ahead went by that clock;
/// - 194: a write beyond the bound of intervals, behind a gap that nobody could fill, stayed where it was;
/// - 2356: a session left out a write that was held and whose writer had not told of it yet, and claimed what it dominated.
const FAILED_ONCE: &[u64] =
    &[0, 2, 5, 9, 20, 22, 28, 40, 62, 93, 109, 114, 172, 194, 234, 236, 458, 763, 904, 2356, 3247, 101_389, 1_002_689];

/// The same with a liar in the world:
///
/// - 4: it used one dot for two keys, so that who had the one took the other for seen and never got what it dominated;
/// - 5: what it forged of others' writes was on version vectors here and not there, for good.
const FAILED_ONCE_WITH_LIAR: &[u64] = &[2, 4, 5];

/// What only a liar makes use of.
const BROKEN_FOR_LIARS: &[(&str, u64, &[&str])] = &[
    ("trust-markers", 0, &["refusals", "frozen"]),
    ("trust-claims", 0, &["convergence", "frozen", "progress", "acknowledged", "converged"]),
];

/// The way to break the protocol, the seed to begin with (near one that shows it), and who may notice.
const BROKEN: &[(&str, u64, &[&str])] = &[
    ("naive-advance", 0, &["version-vector"]),
    ("ignore-intervals", 45, &["convergence", "version-vector", "converged"]),
    ("reuse-origin", 0, &["unique"]),
    ("skip-fsync", 0, &["acknowledged"]),
    ("hasty-ack", 0, &["watermark", "acknowledged"]),
    ("hasty-watermark", 0, &["watermark"]),
    ("merge-by-clock", 0, &["version-vector", "convergence"]),
    ("hasty-covers", 17, &["version-vector"]),
    ("trust-bookmarks", 0, &["read-your-writes"]),
    ("endless-queue", 64, &["bounds"]),
    ("forget-tombstones", 0, &["markers", "resurrection", "version-vector", "convergence"]),
    ("partial-blobs", 0, &["stored"]),
    ("stale-digest", 0, &["convergence", "converged"]),
    ("resume-anywhere", 20_040, &["version-vector", "convergence", "converged"]),
    ("forget-marks", 0, &["read-your-writes"]),
    ("boastful-positions", 0, &["change-feed"]),
    ("mark-by-clock", 0, &["markers", "read-your-writes"]),
    ("ignore-eviction", 34, &["convergence", "evictions"]),
    ("hasty-scan", 0, &["version-vector", "convergence", "converged"]),
    ("hide-untold", 2356, &["version-vector", "convergence", "converged"]),
    ("reissue-anew", 0, &["returned"]),
    ("reissue-blindly", 0, &["markers"]),
    ("reissue-others", 20, &["returned"]),
    ("reissue-nothing", 60, &["acknowledged", "returned"]),
];

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling-sim")).args(args).output().expect("the program starts")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn every_way_to_break_the_protocol_is_caught() {
    let ways = || BROKEN.iter().map(|way| (way, false)).chain(BROKEN_FOR_LIARS.iter().map(|way| (way, true)));
    let untried = sabotage::ALL.iter().find(|(name, ..)| !ways().any(|((tried, ..), _)| tried == name));
    assert!(untried.is_none(), "{untried:?}");
    for ((name, first, checkers), liar) in ways() {
        let way = sabotage::named(Some(name)).expect("it is on the list");
        let found = search(drawn(liar), *first..first + 1_000, cores(), way, &|_| {});
        let found = found.unwrap_or_else(|| panic!("{name} went unnoticed in 1,000 worlds"));
        let checker = found.violation.checker.as_str();
        println!("{name}: seed {} breaks {checker}: {}", found.seed, found.violation.what);
        assert!(checkers.contains(&checker), "{name} was caught by '{checker}': {}", found.violation.what);
    }
}

#[test]
fn seeds_that_failed_once_hold_now() {
    let seeds = FAILED_ONCE.iter().map(|seed| (seed, false));
    for (seed, liar) in seeds.chain(FAILED_ONCE_WITH_LIAR.iter().map(|seed| (seed, true))) {
        let outcome = run(&drawn(liar)(*seed, Sabotage::None));
        let (violations, how) = (&outcome.summary.violations, if liar { " --liar" } else { "" });
        assert!(violations.is_empty(), "{violations:?}\nreplay: starling-sim replay --seed {seed}{how}");
    }
}

#[test]
fn equal_seeds_live_equal_lives() {
    let hash = |seed| run(&draw(seed, Sabotage::None)).summary.trace_hash;
    for seed in [3, 6] {
        assert_eq!(hash(seed), hash(seed));
    }
    assert_ne!(hash(3), hash(6));
}

#[test]
fn runs_print_one_object_and_differ_in_real_time_only() {
    let run = || {
        let args = ["run", "quiet-330", "--pops", "6", "--writes", "30", "--duration", "4s", "--json"];
        let output = sim(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let summary = json["summary"].as_object_mut().expect("it has a summary");
        summary.retain(|name, _| !name.starts_with("real_"));
        json
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert_eq!(first["summary"]["writes"]["everywhere"], 30);
    assert_eq!(first["summary"]["trace_hash"].as_str().map(str::len), Some(64));
}

#[test]
fn a_broken_world_is_shrunk_to_a_command_that_breaks_again() {
    let output =
        sim(&["swarm", "--seeds", "20", "--jobs", "1", "--shrink", "40", "--sabotage", "reuse-origin", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let command = json["replay"].as_str().expect("a command");
    let args: Vec<&str> = command.split(' ').skip(1).collect();
    let again = sim(&args);
    assert_eq!(again.status.code(), Some(1), "{command}");
    assert!(String::from_utf8_lossy(&again.stdout).contains("PROMISE BROKEN"), "{command}");
}

#[test]
fn a_write_can_be_followed() {
    let output = sim(&["run", "quiet-330", "--pops", "4", "--writes", "10", "--duration", "2s", "--trace", "3"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("accepts write 3"), "{told}");
    assert_eq!(told.matches("visible").count(), 3, "{told}");
}

#[test]
fn comparing_marks_what_got_worse() {
    let directory = std::env::temp_dir().join(format!("starling-sim-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (base, new) = (path("base.json"), path("new.json"));
    let run = |out: &str, scenario: &str| {
        let args = ["run", scenario, "--pops", "5", "--writes", "40", "--duration", "4s", "--out", out];
        assert!(sim(&args).status.success());
    };
    run(&base, "quiet-330");
    let scenario = path("lossy.toml");
    std::fs::write(&scenario, "name = \"quiet-330\"\n[links]\nloss = 0.2\n[workload]\nvalue = { bytes = 1024 }")
        .expect("it is written");
    run(&new, &scenario);
    let worse = sim(&["compare", &base, &new]);
    assert_eq!(worse.status.code(), Some(1), "{}", String::from_utf8_lossy(&worse.stdout));
    assert!(String::from_utf8_lossy(&worse.stdout).contains("WORSE"));
    assert_eq!(sim(&["compare", &base, &base]).status.code(), Some(0));
    std::fs::remove_dir_all(&directory).expect("it was there");
}

#[test]
fn mistakes_are_told_and_end_with_2() {
    for args in [&["run", "no-such-scenario"][..], &["swarm", "--sabotage", "none-such"], &["run", "--pops", "0"]] {
        let output = sim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{args:?}");
    }
}

/// A whole-workspace build unifies features, so the tree of this package alone is asked.
#[test]
fn nothing_that_does_io_is_pulled_in() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["tree", "-p", "starling-sim", "-e", "normal", "--prefix", "none", "--offline"];
    let output = Command::new(cargo).args(args).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("starling v"), "{tree}");
    for banned in ["tokio", "quinn", "fjall", "hyper", "rustls"] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{banned} v"))), "{banned} is pulled in:\n{tree}");
    }
}
