//! `starling-sim places`: the PoPs and how fast a write could possibly be everywhere.

use std::process::ExitCode;

use clap::Args;

use crate::bounds::Bounds;
use crate::places::{Delays, spread};

/// Print PoPs, and for each how fast a write could reach the farthest other one.
#[derive(Args)]
pub(super) struct PlacesArgs {
    /// How many, spread evenly over the list.
    #[arg(long, default_value_t = 338)]
    pops: usize,
}

impl PlacesArgs {
    pub(super) fn run(self) -> ExitCode {
        let places = spread(self.pops.max(1));
        let bounds = Bounds::of(&Delays::between(&places));
        println!("{:<5} {:<22} {:<14} {:>10} {:>10}", "PoP", "city", "region", "direct", "relayed");
        for (number, place) in places.iter().enumerate() {
            let (direct, relayed) = (bounds.direct_us[number] as f64 / 1e3, bounds.relayed_us[number] as f64 / 1e3);
            println!("{:<5} {:<22} {:<14} {direct:>7.1} ms {relayed:>7.1} ms", place.iata, place.city, place.region);
        }
        let (direct, relayed) = bounds.quantiles();
        for (name, bound) in [("direct", direct), ("relayed", relayed)] {
            println!("{name:<8} p50 {:.1} ms, p99 {:.1} ms", bound.p50_us as f64 / 1e3, bound.p99_us as f64 / 1e3);
        }
        ExitCode::SUCCESS
    }
}
