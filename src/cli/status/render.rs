//! A page of text from the JSON of a node's status. A field that is absent, or not as expected, is left out: the node
//! may be older or newer than this program.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::duration;
use crate::terminal::{Paint, harmless};

/// An earlier answer, to tell what has happened since.
pub(super) struct Earlier<'a> {
    pub(super) status: &'a Value,
    pub(super) secs: f64,
}

/// The whole page. `now_ms`: Unix time in milliseconds.
pub(super) fn page(status: &Value, earlier: Option<&Earlier<'_>>, now_ms: u64, paint: Paint) -> String {
    let mut page = String::new();
    let title = [text(status, "name"), text(status, "pop")].into_iter().flatten().collect::<Vec<_>>().join("  ");
    let title = if title.is_empty() { "(a node without a name)".to_owned() } else { title };
    let state = text(status, "state").map(|state| paint_state(&state, paint)).unwrap_or_default();
    // Writing to a String can't fail, here and below.
    let _ = writeln!(page, "{}  {state}", paint.bold(&title));
    for (name, value) in facts(status, now_ms) {
        let _ = writeln!(page, "  {}  {value}", paint.dim(&format!("{name:<10}")));
    }
    alarms(&mut page, status, paint);
    peers(&mut page, status, paint);
    counters(&mut page, status, earlier, paint);
    page
}

fn facts(status: &Value, now_ms: u64) -> Vec<(&'static str, String)> {
    let watermark = number(status, "watermark_ms").map(|at| match now_ms.checked_sub(at) {
        _ if at == 0 => "not known yet: some member was not heard of".to_owned(),
        Some(age) => format!("all writes older than {} are here", millis(age as f64)),
        None => "all writes are here".to_owned(),
    });
    let clock = status.get("clock_offset_ms").and_then(Value::as_f64);
    let facts = [
        ("node", text(status, "node")),
        ("account", text(status, "account")),
        ("version", text(status, "version")),
        ("up", number(status, "uptime_secs").map(duration::render)),
        ("durability", text(status, "durability")),
        ("entries", number(status, "entries").map(grouped)),
        ("disk", number(status, "disk_bytes").map(bytes)),
        ("workers", status.get("workers").and_then(workers)),
        ("digest", text(status, "digest")),
        ("watermark", watermark),
        ("clock", clock.map(|offset| format!("{offset:+} ms from the peers' median"))),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn workers(workers: &Value) -> Option<String> {
    let scripts = number(workers, "scripts")?;
    let mut text = format!("{} {}", grouped(scripts), if scripts == 1 { "script" } else { "scripts" });
    for (name, one, many) in [("processes", "process", "processes"), ("runtimes", "runtime", "runtimes")] {
        if let (Some(count @ 1..), Some(memory)) = (number(workers, name), number(workers, "memory_bytes")) {
            let noun = if count == 1 { one } else { many };
            // Writing to a String can't fail.
            let _ = write!(text, " in {} {noun} with {}", grouped(count), bytes(memory));
        }
    }
    if let (Some(answered), Some(failed)) = (number(workers, "answered"), number(workers, "failed")) {
        let _ = write!(text, "; {} requests answered, {} failed", grouped(answered), grouped(failed));
    }
    let ended: u64 = workers.get("ended")?.as_object()?.values().filter_map(Value::as_u64).sum();
    if ended > 0 {
        let _ = write!(text, "; {} ended before their time", grouped(ended));
    }
    Some(text)
}

fn alarms(page: &mut String, status: &Value, paint: Paint) {
    for alarm in list(status, "alarms").iter().filter_map(Value::as_str) {
        let _ = writeln!(page, "\n  {} {}", paint.red("ALARM"), harmless(alarm));
    }
}

const PEER_COLUMNS: [&str; 7] = ["PEER", "POP", "STATE", "RTT", "LAG", "QUEUE", "IN SYNC"];

fn peers(page: &mut String, status: &Value, paint: Paint) {
    let Some(peers) = status.get("peers").and_then(Value::as_array) else { return };
    if peers.is_empty() {
        let _ = writeln!(page, "\n  no peers; `starling invite` makes a token for one");
        return;
    }
    let rows: Vec<[String; 7]> = peers.iter().map(peer_row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([PEER_COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: [&str; 7]| -> [String; 7] {
        std::array::from_fn(|column| match column {
            3..=5 => format!("{:>1$}", cells[column], widths[column]),
            _ => format!("{:<1$}", cells[column], widths[column]),
        })
    };
    let _ = writeln!(page, "\n  {}", paint.dim(line(PEER_COLUMNS).join("  ").trim_end()));
    for row in &rows {
        let mut cells = line(row.each_ref().map(String::as_str));
        cells[2] = paint_state(&cells[2], paint);
        cells[6] = paint_sync(&row[6], paint);
        let _ = writeln!(page, "  {}", cells.join("  "));
    }
}

fn peer_row(peer: &Value) -> [String; 7] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let ms = |key| or_dash(peer.get(key).and_then(Value::as_f64).map(millis));
    let agree = |key| peer.get(key).and_then(Value::as_bool);
    let sync = match (agree("version_vectors_agree"), agree("digests_agree")) {
        (Some(false), _) | (None, Some(false)) => "behind",
        (Some(true), Some(false)) => "DIFFERS",
        (Some(true), _) | (None, Some(true)) => "yes",
        (None, None) => "-",
    };
    [
        or_dash(text(peer, "name").or_else(|| text(peer, "node"))),
        or_dash(text(peer, "pop")),
        or_dash(text(peer, "state")),
        ms("rtt_ms"),
        ms("lag_ms"),
        or_dash(number(peer, "queue").map(grouped)),
        sync.to_owned(),
    ]
}

fn counters(page: &mut String, status: &Value, earlier: Option<&Earlier<'_>>, paint: Paint) {
    let Some(counters) = status.get("counters").and_then(Value::as_object) else { return };
    let counters: Vec<(String, u64)> = counters
        .iter()
        .filter_map(|(name, count)| Some((harmless(name), count.as_u64().filter(|count| *count > 0)?)))
        .collect();
    let Some(width) = counters.iter().map(|(name, _)| name.chars().count()).max() else { return };
    let Some(Earlier { status: earlier, secs }) = earlier else {
        let _ = writeln!(page, "\n  {}", paint.dim("COUNTERS (since start; those at 0 left out)"));
        for (name, count) in counters {
            let _ = writeln!(page, "  {name:<width$}  {}", grouped(count));
        }
        return;
    };
    let width = width.max(30);
    let title = format!("{:<width$}  {:>16}  {:>12}", "COUNTERS (those at 0 left out)", "SINCE START", "PER SECOND");
    let _ = writeln!(page, "\n  {}", paint.dim(&title));
    for (name, count) in counters {
        let before = earlier.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap_or(0);
        // A node that was started anew counts anew.
        let rate = (count.saturating_sub(before) as f64 / secs.max(0.001)).round() as u64;
        let rate = if rate == 0 { "-".to_owned() } else { grouped(rate) };
        let _ = writeln!(page, "  {name:<width$}  {:>16}  {rate:>12}", grouped(count));
    }
}

fn paint_state(state: &str, paint: Paint) -> String {
    match state.trim_end() {
        "serving" | "connected" => paint.green(state),
        "dialing" | "joining" | "starting" => paint.yellow(state),
        _ => paint.red(state),
    }
}

fn paint_sync(sync: &str, paint: Paint) -> String {
    match sync {
        "yes" => paint.green(sync),
        "behind" => paint.yellow(sync),
        "DIFFERS" => paint.red(sync),
        _ => sync.to_owned(),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(harmless).filter(|text| !text.is_empty())
}

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 && ms.fract() != 0.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1_000.0),
        // A float outside the range of u64 becomes its nearest end.
        ms => duration::render((ms / 1_000.0) as u64),
    }
}

fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if size < 1_024.0 {
            return if unit == "bytes" { format!("{size} {unit}") } else { format!("{size:.1} {unit}") };
        }
        size /= 1_024.0;
    }
    format!("{size:.1} TiB")
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn sample() -> Value {
        json!({
            "account": "00112233445566778899aabbccddeeff", "node": "0123456789abcdef", "name": "fra-cdef", "pop": "FRA",
            "version": "0.1.0", "uptime_secs": 11_520, "state": "serving", "durability": "fsync",
            "peers": [
                { "node": "1111111111111111", "name": "ams-1", "pop": "AMS", "state": "connected", "rtt_ms": 7.25,
                  "lag_ms": 41, "version_vectors_agree": true, "digests_agree": true, "queue": 0 },
                { "node": "2222222222222222", "name": "a-long-name-in-sydney", "pop": "SYD", "state": "connected",
                  "rtt_ms": 281.4, "lag_ms": 1900, "version_vectors_agree": false, "digests_agree": false, "queue": 1234 },
                { "node": "3333333333333333", "state": "offline" },
                { "name": "odd", "state": "connected", "version_vectors_agree": true, "digests_agree": false },
            ],
            "digest": "c0ffee", "entries": 1_234_567, "watermark_ms": NOW_MS - 1_500, "disk_bytes": 5_767_168,
            "workers": { "scripts": 12, "processes": 2, "memory_bytes": 190_000_000, "answered": 4_321, "failed": 2,
                         "ended": { "cpu": 1, "crash": 2 } },
            "clock_offset_ms": -3, "counters": { "records_applied": 42_000, "bad_frames": 0 },
            "alarms": ["clock 260 ms off"],
        })
    }

    fn check(status: &Value, lines: &[&str]) {
        let page = page(status, None, NOW_MS, Paint::PLAIN);
        for line in lines {
            assert!(page.lines().any(|l| l.trim_end() == *line), "{line:?}\nis not in\n{page}");
        }
    }

    #[test]
    fn a_page() {
        check(
            &sample(),
            &[
                "fra-cdef  FRA  serving",
                "  up          3h 12m",
                "  entries     1,234,567",
                "  disk        5.5 MiB",
                "  workers     12 scripts in 2 processes with 181.2 MiB; 4,321 requests answered, 2 failed; 3 ended \
                 before their time",
                "  watermark   all writes older than 1.5 s are here",
                "  clock       -3 ms from the peers' median",
                "  ALARM clock 260 ms off",
                "  PEER                   POP  STATE         RTT    LAG  QUEUE  IN SYNC",
                "  ams-1                  AMS  connected  7.2 ms  41 ms      0  yes",
                "  a-long-name-in-sydney  SYD  connected  281 ms  1.9 s  1,234  behind",
                "  3333333333333333       -    offline         -      -      -  -",
                "  odd                    -    connected       -      -      -  DIFFERS",
                "  records_applied  42,000",
            ],
        );
        assert!(!page(&sample(), None, NOW_MS, Paint::PLAIN).contains("bad_frames"));
    }

    #[test]
    fn what_happens_per_second() {
        let (mut later, earlier) = (sample(), sample());
        later["counters"]["records_applied"] = 43_000.into();
        let earlier = Earlier { status: &earlier, secs: 2.0 };
        let page = page(&later, Some(&earlier), NOW_MS, Paint::PLAIN);
        let row = page.lines().find(|line| line.contains("records_applied")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["records_applied", "43,000", "500"]);
    }

    #[test]
    fn a_node_that_says_little_or_nonsense() {
        check(&json!({}), &["(a node without a name)"]);
        check(&json!({ "watermark_ms": 0 }), &["  watermark   not known yet: some member was not heard of"]);
        check(&json!({ "name": "x", "state": "read-only: disk full", "peers": [] }), &["x  read-only: disk full"]);
        let nonsense =
            json!({ "name": 5, "peers": [7], "alarms": {}, "counters": [], "uptime_secs": "long", "pop": null });
        check(&nonsense, &["  -     -    -        -    -      -  -"]);
        check(&json!({ "name": "evil\u{1b}[2J\nfake" }), &["evil[2Jfake"]);
    }
}
