//! Where nodes stand and how long the way between them is: real PoP locations, and a round-trip model fitted to
//! measured ones. Knows nothing of nodes or packets.

use serde::{Deserialize, Serialize};

use crate::portable::{asin, cos, sin};

const POPS: &str = include_str!("../data/pops.csv");
const INFLATION: &str = include_str!("../data/region_inflation.csv");
/// For a pair of regions that nobody measured.
const INFLATION_UNKNOWN: f64 = 2.0;
const EARTH_RADIUS_KM: f64 = 6371.0;

/// One PoP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Three letters, unique.
    pub iata: String,
    /// For people.
    pub city: String,
    /// Two letters.
    pub country: String,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
    /// One of seven.
    pub region: String,
}

impl Place {
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        let mut text = || fields.next().map(str::to_owned);
        Some(Self {
            iata: text()?,
            city: text()?,
            country: text()?,
            lat: text()?.parse().ok()?,
            lon: text()?.parse().ok()?,
            region: text()?,
        })
    }
}

/// Every PoP there is, by IATA code.
pub fn all() -> Vec<Place> {
    POPS.lines().skip(1).filter_map(Place::read).collect()
}

/// `count` PoPs, spread evenly over the list; more than there are begin again from the top, several to a PoP.
pub fn spread(count: usize) -> Vec<Place> {
    let all = all();
    let distinct = count.min(all.len());
    (0..count).map(|node| all[(node % distinct) * all.len() / distinct].clone()).collect()
}

/// One-way times in microseconds between all places, in both directions alike.
#[derive(Clone, Debug)]
pub struct Delays {
    count: usize,
    one_way_us: Vec<u32>,
}

impl Delays {
    /// Of the model: `rtt_ms = 1 + great_circle_km / 100 * p50(region_a, region_b)`.
    pub fn between(places: &[Place]) -> Self {
        let inflation = Inflation::read();
        let mut one_way_us = Vec::with_capacity(places.len() * places.len());
        for a in places {
            for b in places {
                let rtt_ms = 1.0 + great_circle_km(a, b) / 100.0 * inflation.between(&a.region, &b.region);
                one_way_us.push((rtt_ms * 500.0).round() as u32);
            }
        }
        Self { count: places.len(), one_way_us }
    }

    /// From place `a` to place `b`.
    pub fn one_way_us(&self, a: usize, b: usize) -> u64 {
        u64::from(self.one_way_us[a * self.count + b])
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

struct Inflation(Vec<(String, String, f64)>);

impl Inflation {
    fn read() -> Self {
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            Some((fields.first()?.to_string(), fields.get(1)?.to_string(), fields.get(4)?.parse().ok()?))
        };
        Self(INFLATION.lines().skip(1).filter_map(row).collect())
    }

    fn between(&self, a: &str, b: &str) -> f64 {
        let row = self.0.iter().find(|(x, y, _)| (x == a && y == b) || (x == b && y == a));
        row.map_or(INFLATION_UNKNOWN, |(_, _, median)| *median)
    }
}

/// Along the surface, by the chord between the two points.
fn great_circle_km(a: &Place, b: &Place) -> f64 {
    let unit = |place: &Place| {
        let (lat, lon) = (place.lat.to_radians(), place.lon.to_radians());
        (cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat))
    };
    let ((ax, ay, az), (bx, by, bz)) = (unit(a), unit(b));
    let (x, y, z) = (ax - bx, ay - by, az - bz);
    2.0 * EARTH_RADIUS_KM * asin((x * x + y * y + z * z).sqrt() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(iata: &str) -> Place {
        all().into_iter().find(|place| place.iata == iata).expect("it is on the list")
    }

    #[test]
    fn the_whole_list_is_read() {
        assert_eq!(all().len(), 338);
        assert_eq!(spread(3).len(), 3);
        assert_eq!(spread(1000).iter().filter(|place| place.iata == "FRA").count(), 3);
    }

    #[test]
    fn round_trips_follow_the_model() {
        let (frankfurt, washington) = (place("FRA"), place("IAD"));
        let km = great_circle_km(&frankfurt, &washington);
        assert!((6_500.0..6_600.0).contains(&km), "{km}");
        let delays = Delays::between(&[frankfurt, washington]);
        // 1 ms + 65.5 x 1.650, halved.
        assert_eq!(delays.one_way_us(0, 1), delays.one_way_us(1, 0));
        assert!((54_000..55_000).contains(&delays.one_way_us(0, 1)), "{}", delays.one_way_us(0, 1));
        assert_eq!(delays.one_way_us(0, 0), 500);
    }
}
