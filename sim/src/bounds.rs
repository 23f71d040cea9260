//! How fast a write could possibly be everywhere: directly, and over the best relays. The routes of the Internet
//! violate the triangle inequality, so relaying can win.

use crate::outcome::Quantiles;
use crate::places::Delays;

/// For each place, the time to the farthest other one.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Straight from origin to receiver, microseconds.
    pub direct_us: Vec<u64>,
    /// Along shortest paths, forwarding for free, microseconds.
    pub relayed_us: Vec<u64>,
}

impl Bounds {
    /// Of these places. Cubic in their number (under two seconds for a thousand).
    pub fn of(delays: &Delays) -> Self {
        let count = delays.count();
        let mut shortest: Vec<Vec<u32>> =
            (0..count).map(|a| (0..count).map(|b| delays.one_way_us(a, b) as u32).collect()).collect();
        for (place, row) in shortest.iter_mut().enumerate() {
            row[place] = 0;
        }
        let farthest = |rows: &[Vec<u32>]| -> Vec<u64> {
            rows.iter().map(|row| u64::from(row.iter().copied().max().unwrap_or(0))).collect()
        };
        let direct_us = farthest(&shortest);
        for relay in 0..count {
            let onward = shortest[relay].clone();
            for row in &mut shortest {
                let there = row[relay];
                for (way, rest) in row.iter_mut().zip(&onward) {
                    *way = (*way).min(there + rest);
                }
            }
        }
        Self { direct_us, relayed_us: farthest(&shortest) }
    }

    /// Over all origins: direct, relayed.
    pub fn quantiles(&self) -> (Quantiles, Quantiles) {
        (Quantiles::of(self.direct_us.clone()), Quantiles::of(self.relayed_us.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places;

    #[test]
    fn the_published_bounds_of_all_places() {
        let bounds = Bounds::of(&Delays::between(&places::all()));
        let (direct, relayed) = bounds.quantiles();
        let rounded_ms = |bound: Quantiles| ((bound.p50_us + 500) / 1000, (bound.p99_us + 500) / 1000);
        assert_eq!(rounded_ms(direct), (189, 249));
        assert_eq!(rounded_ms(relayed), (169, 203));
    }
}
