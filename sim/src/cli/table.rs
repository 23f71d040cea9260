//! A summary as a table, for people.

use std::fmt::Write;

use crate::outcome::{Quantiles, Summary};

/// As text that ends in a newline.
pub(super) fn render(summary: &Summary) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<34} {value}");
    line("scenario", format!("{}, seed {}", summary.scenario, summary.seed));
    line("nodes", format!("{} at {} PoPs", summary.nodes, summary.pops));
    let writes = &summary.writes;
    line(
        "writes",
        format!(
            "{} accepted, {} everywhere, {} unfinished, {} refused, {} at nodes that were down",
            writes.accepted, writes.everywhere, writes.unfinished, writes.refused, writes.unserved
        ),
    );
    line("", format!("{:>9} {:>9} {:>9} {:>9}", "p50", "p90", "p99", "max"));
    line("visible at the last PoP, ms", ms(summary.lag_last));
    line("visible at 99 % of PoPs, ms", ms(summary.lag_most));
    line("visible at any PoP, ms", ms(summary.lag_each));
    line("bound, relays allowed, ms", ms(summary.bound_relayed));
    line("bound, straight, ms", ms(summary.bound_direct));
    line("last PoP over relayed bound", ratio(summary.lag_over_bound));
    if summary.bookmark_reads > 0 {
        line(&format!("wait of {} bookmark reads, ms", summary.bookmark_reads), ms(summary.bookmark_wait));
    }
    line("watermark behind the present, ms", ms(summary.watermark_lag));
    let traffic = &summary.traffic;
    let milli = |milli: u64| format!("{:.2}", milli as f64 / 1e3);
    line("copies of a record per node", milli(traffic.copies_per_node_milli));
    line(
        "bytes per write and node",
        format!(
            "{} ({} without control)",
            milli(traffic.bytes_per_write_per_node_milli),
            milli(traffic.data_bytes_per_write_per_node_milli)
        ),
    );
    line("messages per write and node", milli(traffic.messages_per_write_per_node_milli));
    for (class, flow) in &traffic.classes {
        let mib = flow.bytes as f64 / 1048576.0;
        line(&format!("  {class}"), format!("{} messages, {mib:.1} MiB", flow.messages));
    }
    line(
        "repair",
        format!(
            "{} sync sessions asked for, {} completed, {} records",
            traffic.syncs_asked, traffic.syncs_completed, traffic.records_synced
        ),
    );
    line("network", format!("{} packets lost, {} connection ends lost", traffic.lost_packets, traffic.disconnections));
    let list = |counts: &std::collections::BTreeMap<String, u64>| {
        let items: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    line("peaks", list(&summary.peaks));
    line("faults", list(&summary.faults));
    line("alarms", list(&summary.alarms));
    if let Some(healed_us) = summary.healed_us {
        line("all equal after the last fault", format!("{:.2} s", healed_us as f64 / 1e6));
    }
    line("trace", summary.trace_hash.clone());
    line(
        "time",
        format!(
            "{:.1} s virtual, {:.1} s real, {} MiB",
            summary.virtual_us as f64 / 1e6,
            summary.real_seconds,
            summary.real_memory_mib
        ),
    );
    match summary.violations.first() {
        None => line("promises", "all held".into()),
        Some(violation) => line(
            "PROMISE BROKEN",
            format!("{} at {:.3} s: {}", violation.checker, violation.at_us as f64 / 1e6, violation.what),
        ),
    }
    text
}

fn ms(quantiles: Quantiles) -> String {
    let ms = |us: u64| format!("{:>9.1}", us as f64 / 1e3);
    let Quantiles { p50_us, p90_us, p99_us, max_us, .. } = quantiles;
    format!("{} {} {} {}", ms(p50_us), ms(p90_us), ms(p99_us), ms(max_us))
}

fn ratio(quantiles: Quantiles) -> String {
    let ratio = |permille: u64| format!("{:>9.3}", permille as f64 / 1e3);
    let Quantiles { p50_us, p90_us, p99_us, max_us, .. } = quantiles;
    format!("{} {} {} {}", ratio(p50_us), ratio(p90_us), ratio(p99_us), ratio(max_us))
}
