//! The table of `status`: a row a node.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::node::State;
use crate::sample::Sample;
use crate::world::World;

/// What `status` tells, for people and for scripts.
pub async fn rows(world: &World) -> Vec<Json> {
    let mut rows = Vec::new();
    for (node, status) in world.statuses().await {
        let state = node.state();
        let sample = node.pid().map(Sample::of).unwrap_or_default();
        let (others, mut cut, mut slow) = (world.nodes(), Vec::new(), 0);
        world.emulator().ways(|ways| {
            for other in others.iter().filter(|other| other.number != node.number && other.state() != State::Gone) {
                let (out, back) = ((node.number, other.number), (other.number, node.number));
                match (ways.is_cut(out), ways.is_cut(back)) {
                    (true, true) => cut.push(other.name.clone()),
                    (true, false) => cut.push(format!("→{}", other.name)),
                    (false, true) => cut.push(format!("←{}", other.name)),
                    _ => slow += usize::from(ways.is_slow(out) || ways.is_slow(back)),
                }
            }
        });
        let mut row = json!({
            "node": node.name,
            "pop": node.place.iata,
            "city": node.place.city,
            "state": if node.is_foreign() { "foreign" } else { state.name() },
            "api": format!("http://{}", node.api_address),
            "gossip": node.public.to_string(),
            "listen": node.private.to_string(),
            "data": node.data(),
            "log": node.log(),
            "pid": node.pid(),
            "clock_offset_ms": node.clock_offset_ms(),
            "cut_off_from": cut,
            "slow_links": slow,
            "memory_bytes": sample.rss,
            "cpu_ms": sample.cpu_ms,
            "fds": sample.fds,
        });
        match status {
            Ok(status) => {
                let peers = status["peers"].as_array().cloned().unwrap_or_default();
                let numbers = |key: &str| peers.iter().filter_map(|peer| peer[key].as_f64()).collect::<Vec<_>>();
                let connected = peers.iter().filter(|peer| peer["state"] == "connected").count();
                let rtts = numbers("rtt_ms");
                row["says"] = status["state"].clone();
                row["peers"] = peers.len().into();
                row["connected"] = connected.into();
                row["lag_ms"] = numbers("lag_ms").into_iter().fold(0.0, f64::max).into();
                row["rtt_ms_min"] = rtts.iter().copied().reduce(f64::min).into();
                row["rtt_ms_max"] = rtts.iter().copied().reduce(f64::max).into();
                row["writes"] = status["counters"]["local_writes"].clone();
                row["entries"] = status["entries"].clone();
                row["digest"] = status["digest"].clone();
                row["disk_bytes"] = status["disk_bytes"].clone();
            }
            Err(why) if state == State::Up => row["says"] = format!("does not answer: {why}").into(),
            Err(_) => {}
        }
        rows.push(row);
    }
    rows
}

/// The rows as text.
pub fn text(rows: &[Json]) -> String {
    let mut text = format!(
        "{:<8} {:<5} {:<9} {:>6} {:>8} {:>13} {:>8} {:>8} {:>8} {:>9}  {:<8} {}\n",
        "NODE", "POP", "STATE", "PEERS", "LAG", "RTT", "WRITES", "ENTRIES", "MEMORY", "CPU", "DIGEST", ""
    );
    for row in rows {
        let word = |key: &str| row[key].as_str().unwrap_or_default();
        let number = |key: &str| row[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let ms = |key: &str| row[key].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
        let peers = match row["peers"].as_u64() {
            Some(peers) => format!("{}/{peers}", number("connected")),
            None => "-".to_owned(),
        };
        let rtt = match row["rtt_ms_min"].is_null() {
            true => "-".to_owned(),
            false => format!("{}-{} ms", ms("rtt_ms_min"), ms("rtt_ms_max")),
        };
        let mut notes = Vec::new();
        if !matches!(word("says"), "serving" | "") {
            notes.push(word("says").to_owned());
        }
        let cut: Vec<&str> = row["cut_off_from"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        match cut.len() {
            0 => {}
            1..=5 => notes.push(format!("cut off: {}", cut.join(" "))),
            many => notes.push(format!("cut off from {many}")),
        }
        if row["slow_links"].as_u64().unwrap_or(0) > 0 {
            notes.push(format!("{} slow links", row["slow_links"]));
        }
        if row["clock_offset_ms"].as_i64().unwrap_or(0) != 0 {
            notes.push(format!("clock {:+} ms", row["clock_offset_ms"].as_i64().unwrap_or(0)));
        }
        let digest: String = word("digest").chars().take(8).collect();
        let memory = match row["memory_bytes"].as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(bytes) => format!("{} MiB", bytes >> 20),
        };
        let lag = match row["lag_ms"].is_null() {
            true => "-".to_owned(),
            false => format!("{} ms", ms("lag_ms")),
        };
        let cpu = format!("{:.1} s", row["cpu_ms"].as_f64().unwrap_or(0.0) / 1e3);
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{:<8} {:<5} {:<9} {:>6} {:>8} {:>13} {:>8} {:>8} {:>8} {:>9}  {:<8} {}",
            word("node"),
            word("pop"),
            word("state"),
            peers,
            lag,
            rtt,
            number("writes"),
            number("entries"),
            memory,
            cpu,
            digest,
            notes.join("; ")
        );
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
