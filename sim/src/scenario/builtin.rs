//! The scenarios that come along, so that they can be run by name.

/// Name and text.
pub const BUILTIN: &[(&str, &str)] = &[
    ("quiet-330", include_str!("../../scenarios/quiet-330.toml")),
    ("loss-5", include_str!("../../scenarios/loss-5.toml")),
    ("bursty-loss", include_str!("../../scenarios/bursty-loss.toml")),
    ("partition-heal", include_str!("../../scenarios/partition-heal.toml")),
    ("flapping", include_str!("../../scenarios/flapping.toml")),
    ("crash-storm", include_str!("../../scenarios/crash-storm.toml")),
    ("slow-nodes", include_str!("../../scenarios/slow-nodes.toml")),
    ("clock-chaos", include_str!("../../scenarios/clock-chaos.toml")),
    ("hot-key", include_str!("../../scenarios/hot-key.toml")),
    ("bulk-load", include_str!("../../scenarios/bulk-load.toml")),
    ("big-values", include_str!("../../scenarios/big-values.toml")),
    ("rejoin-after-days", include_str!("../../scenarios/rejoin-after-days.toml")),
    ("thousand", include_str!("../../scenarios/thousand.toml")),
];

/// The text of one, by name.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
