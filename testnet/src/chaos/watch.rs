//! What processes use while the world goes on: memory, file descriptors, disk. Kept as rows, drawn as a page.

use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::node::{Node, State};
use crate::sample::{Sample, disk_bytes};

/// One look at one node.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Look {
    /// Microseconds since the beginning.
    pub at_us: u64,
    /// The node's number.
    pub node: usize,
    /// Its process.
    pub process: Sample,
    /// Its data directory, bytes.
    pub disk: u64,
}

/// All looks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Watch {
    /// Names of nodes, by number.
    pub names: Vec<String>,
    /// In order of time.
    pub looks: Vec<Look>,
}

/// Medians over all nodes, early and late: of the second quarter and of the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flatness {
    /// Memory, MiB.
    pub memory_mib: (u64, u64),
    /// File descriptors.
    pub fds: (u64, u64),
    /// Data directory, MiB.
    pub disk_mib: (u64, u64),
    /// The fullest data directory of all, MiB: a journal grows until it is given up, so medians go up and down.
    pub fullest_mib: (u64, u64),
}

impl Watch {
    /// Of these nodes.
    pub fn new(nodes: &[Arc<Node>]) -> Self {
        Self { names: nodes.iter().map(|node| node.name.clone()).collect(), looks: Vec::new() }
    }

    /// Looks at everyone whose process runs.
    pub fn sample(&mut self, at_us: u64, nodes: &[Arc<Node>]) {
        for node in nodes.iter().filter(|node| node.state() == State::Up) {
            if let Some(pid) = node.pid() {
                let process = Sample::of(pid);
                self.looks.push(Look { at_us, node: node.number, process, disk: disk_bytes(&node.data()) });
            }
        }
    }

    /// Whether it grows.
    pub fn flatness(&self) -> Flatness {
        let end_us = self.looks.last().map_or(0, |look| look.at_us);
        let median = |from: u64, to: u64, of: &dyn Fn(&Look) -> u64| {
            let is_within = |look: &&Look| look.at_us * 4 >= end_us * from && look.at_us * 4 <= end_us * to;
            let mut found: Vec<u64> = self.looks.iter().filter(is_within).map(of).collect();
            found.sort_unstable();
            found.get(found.len() / 2).copied().unwrap_or(0)
        };
        let fullest = |from: u64, to: u64| {
            let is_within = |look: &&Look| look.at_us * 4 >= end_us * from && look.at_us * 4 <= end_us * to;
            self.looks.iter().filter(is_within).map(|look| look.disk >> 20).max().unwrap_or(0)
        };
        let both = |of: &dyn Fn(&Look) -> u64| (median(1, 2, of), median(3, 4, of));
        Flatness {
            memory_mib: both(&|look| look.process.rss >> 20),
            fds: both(&|look| look.process.fds),
            disk_mib: both(&|look| look.disk >> 20),
            fullest_mib: (fullest(1, 2), fullest(3, 4)),
        }
    }

    /// Three plots, a line for each node, as a page of its own.
    pub fn page(&self, title: &str) -> String {
        let mut page = format!(
            "<!doctype html><meta charset=utf-8><title>{title}</title><style>body{{font:15px sans-serif;margin:2em;max-width:60em}}\
             svg{{width:100%;background:#fafafa}}text{{font-size:12px;fill:#555}}</style><h1>{title}</h1>"
        );
        page.push_str(&self.plot("Memory, MiB", &|look| look.process.rss as f64 / 1_048_576.0));
        page.push_str(&self.plot("File descriptors", &|look| look.process.fds as f64));
        page.push_str(&self.plot("Data directory, MiB", &|look| look.disk as f64 / 1_048_576.0));
        let names = self
            .names
            .iter()
            .enumerate()
            .map(|(node, name)| format!("<span style=color:{}>{name}</span>", colour(node)));
        let _ = write!(page, "<p>{}</p>", names.collect::<Vec<_>>().join(" "));
        page
    }

    fn plot(&self, title: &str, of: &dyn Fn(&Look) -> f64) -> String {
        let end_us = self.looks.last().map_or(1, |look| look.at_us.max(1));
        let top = self.looks.iter().map(of).fold(1.0, f64::max) * 1.05;
        let mut svg = format!(
            "<h2>{title}</h2><svg viewBox='0 0 900 220'><line x1=50 y1=200 x2=890 y2=200 stroke=#999 /><line x1=50 y1=10 x2=50 y2=200 stroke=#999 />\
             <text x=4 y=16>{top:.0}</text><text x=30 y=203>0</text><text x=820 y=216>{:.0} s</text>",
            end_us as f64 / 1e6
        );
        for node in 0..self.names.len() {
            let point = |look: &Look| {
                format!("{:.1},{:.1}", 50.0 + 840.0 * look.at_us as f64 / end_us as f64, 200.0 - 190.0 * of(look) / top)
            };
            let points: Vec<String> = self.looks.iter().filter(|look| look.node == node).map(point).collect();
            let _ = write!(svg, "<polyline fill=none stroke={} points='{}'/>", colour(node), points.join(" "));
        }
        svg + "</svg>"
    }
}

fn colour(node: usize) -> String {
    format!("hsl({},65%,42%)", node * 137 % 360)
}
