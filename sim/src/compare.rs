//! Two summaries side by side: what got worse, what got better. A figure is worse if it grew by more than its tolerance.

use crate::outcome::Summary;

/// One figure of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Before.
    pub base: f64,
    /// Now.
    pub new: f64,
    /// How it is judged.
    pub change: Change,
}

/// How a figure changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Within its tolerance.
    Same,
    /// Smaller by more than that.
    Better,
    /// Larger by more than that.
    Worse,
}

/// Compares; all figures are better when smaller.
pub fn compare(base: &Summary, new: &Summary) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |name: &str, base: f64, new: f64, tolerance: f64| {
        let change = match () {
            () if new > base * (1.0 + tolerance) + f64::EPSILON => Change::Worse,
            () if new < base * (1.0 - tolerance) - f64::EPSILON => Change::Better,
            () => Change::Same,
        };
        lines.push(Line { name: name.to_owned(), base, new, change });
    };
    let ms = |us: u64| us as f64 / 1_000.0;
    for (name, base, new) in [
        ("lag to the last PoP", base.lag_last, new.lag_last),
        ("lag to 99 % of PoPs", base.lag_most, new.lag_most),
        ("bookmark wait", base.bookmark_wait, new.bookmark_wait),
        ("watermark behind", base.watermark_lag, new.watermark_lag),
    ] {
        if base.count == 0 {
            continue;
        }
        add(&format!("{name}, p50 ms"), ms(base.p50_us), ms(new.p50_us), 0.03);
        add(&format!("{name}, p99 ms"), ms(base.p99_us), ms(new.p99_us), 0.05);
    }
    let milli = |milli: u64| milli as f64 / 1_000.0;
    let (b, n) = (&base.traffic, &new.traffic);
    add("copies per node", milli(b.copies_per_node_milli), milli(n.copies_per_node_milli), 0.03);
    let bytes = |t: &crate::outcome::Traffic| milli(t.bytes_per_write_per_node_milli);
    add("bytes per write and node", bytes(b), bytes(n), 0.03);
    let data = |t: &crate::outcome::Traffic| milli(t.data_bytes_per_write_per_node_milli);
    add("bytes per write and node without control", data(b), data(n), 0.03);
    let messages = |t: &crate::outcome::Traffic| milli(t.messages_per_write_per_node_milli);
    add("messages per write and node", messages(b), messages(n), 0.05);
    add("sync sessions", b.syncs_completed as f64, n.syncs_completed as f64, 0.2);
    add("records repaired", b.records_synced as f64, n.records_synced as f64, 0.2);
    add("writes unfinished", base.writes.unfinished as f64, new.writes.unfinished as f64, 0.0);
    add("healed after, ms", ms(base.healed_us.unwrap_or(0)), ms(new.healed_us.unwrap_or(0)), 0.2);
    add("promises broken", base.violations.len() as f64, new.violations.len() as f64, 0.0);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_is_worse_and_a_little_slower_is_the_same() {
        let mut base = Summary::default();
        (base.lag_last.count, base.lag_last.p99_us) = (100, 300_000);
        let mut new = base.clone();
        new.lag_last.p99_us = 310_000;
        assert!(compare(&base, &new).iter().all(|line| line.change == Change::Same));
        new.lag_last.p99_us = 330_000;
        let worse: Vec<Line> = compare(&base, &new).into_iter().filter(|line| line.change == Change::Worse).collect();
        assert_eq!(worse.len(), 1);
        assert_eq!(worse[0].name, "lag to the last PoP, p99 ms");
        assert_eq!(compare(&new, &base).iter().filter(|line| line.change == Change::Better).count(), 1);
    }
}
