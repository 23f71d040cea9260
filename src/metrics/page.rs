//! The text that Prometheus reads (exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::histogram::BOUNDS_US;
use super::{ALL, Histogram, Kind, Metric};

/// A page in the making: samples by metric, in whatever order they come.
#[derive(Default)]
pub struct Page {
    samples: BTreeMap<&'static str, String>,
}

impl Page {
    /// The `Content-Type` of a page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// A value, with the values of the metric's labels.
    pub fn sample(&mut self, metric: &Metric, labels: &[&str], value: impl Display) {
        let out = self.samples.entry(metric.name).or_default();
        // Writing to a String can't fail, here and below.
        let _ = writeln!(out, "{}{} {value}", metric.name, Labels(metric, labels, None));
    }

    /// All of a histogram.
    pub fn histogram(&mut self, metric: &Metric, labels: &[&str], histogram: &Histogram) {
        let out = self.samples.entry(metric.name).or_default();
        let cumulative = histogram.cumulative();
        let bounds = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(cumulative) {
            let _ = writeln!(out, "{}_bucket{} {count}", metric.name, Labels(metric, labels, Some(&bound)));
        }
        let labels = Labels(metric, labels, None);
        let _ = writeln!(out, "{}_sum{labels} {}", metric.name, histogram.sum_secs());
        let _ = writeln!(out, "{}_count{labels} {}", metric.name, cumulative.last().unwrap_or(&0));
    }

    /// The page: every metric with its meaning, also those without a sample yet.
    pub fn finish(self) -> String {
        let mut text = String::new();
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
            let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
            text += self.samples.get(metric.name).map_or("", String::as_str);
        }
        text
    }
}

struct Labels<'a>(&'a Metric, &'a [&'a str], Option<&'a str>);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(metric, values, bound) = self;
        let mut labels = metric.labels.iter().copied().zip(values.iter().copied()).chain(bound.map(|le| ("le", le)));
        let Some((name, value)) = labels.next() else { return Ok(()) };
        write!(f, "{{{name}=\"{}\"", escaped(value))?;
        for (name, value) in labels {
            write!(f, ",{name}=\"{}\"", escaped(value))?;
        }
        f.write_char('}')
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
