//! Which nodes a fault befalls: `all`, `node:3`, `pop:FRA`, `region:Europe`, `share:20%`, several joined by `+`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::places::{self, Place};

/// A choice of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Selector {
    /// Everyone.
    #[default]
    All,
    /// One, by number from 0.
    Node(usize),
    /// Those at one PoP.
    Pop(String),
    /// Those in one region.
    Region(String),
    /// This many in a hundred, drawn from the seed.
    Share(u64),
    /// All of these.
    Any(Vec<Selector>),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Node(node) => write!(f, "node:{node}"),
            Self::Pop(pop) => write!(f, "pop:{pop}"),
            Self::Region(region) => write!(f, "region:{region}"),
            Self::Share(percent) => write!(f, "share:{percent}%"),
            Self::Any(any) => {
                let parts: Vec<String> = any.iter().map(Self::to_string).collect();
                f.write_str(&parts.join("+"))
            }
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('+') {
            return text.split('+').map(str::parse).collect::<Result<_, _>>().map(Self::Any);
        }
        let wrong = || {
            format!("'{text}' chooses no nodes: write all, node:3, pop:FRA, region:Europe or share:20%, joined by +")
        };
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("node", node)) => node.parse().map(Self::Node).map_err(|_| wrong()),
            Some(("pop", pop)) => Ok(Self::Pop(pop.into())),
            Some(("region", region)) => Ok(Self::Region(region.into())),
            Some(("share", share)) => {
                let percent = share.strip_suffix('%').and_then(|number| number.parse().ok());
                percent.filter(|percent| *percent <= 100).map(Self::Share).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl Selector {
    /// Whether what it names exists, though perhaps no node stands there.
    pub(super) fn check(&self, nodes: usize) -> Result<(), String> {
        let is_there = |is_it: &dyn Fn(&Place) -> bool| places::all().iter().any(is_it);
        match self {
            Self::Node(node) if *node >= nodes => {
                Err(format!("there is no node:{node}, they go from node:0 to node:{}", nodes.saturating_sub(1)))
            }
            Self::Pop(pop) if !is_there(&|place| place.iata == *pop) => {
                Err(format!("no PoP '{pop}' on the list; `starling-sim places` prints it"))
            }
            Self::Region(region) if !is_there(&|place| place.region == *region) => {
                Err(format!("no region '{region}' on the list; `starling-sim places` prints it"))
            }
            Self::Any(any) => any.iter().try_for_each(|selector| selector.check(nodes)),
            _ => Ok(()),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_back() {
        for text in ["all", "node:3", "pop:FRA", "region:North America", "share:20%", "pop:FRA+pop:IAD"] {
            assert_eq!(text.parse::<Selector>().expect("a selector").to_string(), text);
        }
        for text in ["", "some", "node:x", "share:200%", "share:20"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
