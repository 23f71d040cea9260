//! The figures of a bench as a page of its own: a plot for each size, and the rest in words.

use std::fmt::Write;

use super::{Both, Report};
use crate::load::Took;

const WIDTH: f64 = 860.0;
const ROW: f64 = 18.0;

pub(super) fn draw(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Testnet figures</title><style>body{font:15px sans-serif;margin:2em;\
         max-width:62em}svg{width:100%;display:block}h3{margin:1em 0 .2em}text{font-size:13px}td,th{padding:2px 10px;\
         text-align:right;white-space:nowrap}th{border-bottom:1px solid #ccc}tr:nth-child(odd)>td{background:#f6f6f6}</style>\
         <h1>Real nodes on an emulated planet, beside the simulator</h1><p>From a write's request until the last other \
         node shows it, ms. Bars reach to p99, the dark part to p50; the line is the median of the bound (straight to the \
         farthest node).</p>",
    );
    let top_us = report.lags.iter().flat_map(|both| [both.real.lag_last.p99_us, both.simulated.lag_last.p99_us]).max();
    let top = top_us.unwrap_or(1).max(1) as f64;
    for both in &report.lags {
        let _ =
            write!(page, "<h3>{} nodes, {:.0} % loss</h3>{}", both.real.nodes, both.real.loss * 100.0, bars(both, top));
    }
    page.push_str(
        "<h2>In numbers</h2><table><tr><th colspan=2><th colspan=3>real, ms<th colspan=3>simulated, ms<th>bound, ms\
         <th colspan=2>bytes a write and node<th colspan=2>a node</tr><tr><th>nodes<th>loss<th>p50<th>p99<th>max<th>p50\
         <th>p99<th>max<th>p50<th>all<th>beyond idle<th>CPU ms/s<th>MiB</tr>",
    );
    for Both { real, simulated } in &report.lags {
        let ms = |us: u64| format!("{:.0}", us as f64 / 1e3);
        let _ = write!(
            page,
            "<tr><td>{}<td>{:.0} %<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.0}<td>{:.0}<td>{:.1}<td>{}</tr>",
            real.nodes,
            real.loss * 100.0,
            ms(real.lag_last.p50_us),
            ms(real.lag_last.p99_us),
            ms(real.lag_last.max_us),
            ms(simulated.lag_last.p50_us),
            ms(simulated.lag_last.p99_us),
            ms(simulated.lag_last.max_us),
            ms(real.bound.p50_us),
            real.bytes_per_write_per_node,
            real.bytes_per_write_per_node_beyond_idle.unwrap_or(0.0),
            real.cpu_ms_per_sec.unwrap_or(0.0),
            real.memory.unwrap_or(0) >> 20
        );
    }
    let _ = write!(page, "</table><p>On {} cores, nodes, clients and emulator together.</p>", report.cores);
    if report.throughput.is_some() || report.catch_up.is_some() || report.bootstrap.is_some() {
        page.push_str("<h2>What nodes take</h2>");
    }
    if let Some(load) = &report.throughput {
        let _ = write!(
            page,
            "<p>Five nodes. Writes of 100 bytes, each on disk before it is answered: {:.0}/s at one node, {:.0}/s at five at \
             once, which write everything five times. Reads: {:.0}/s and {:.0}/s.</p>",
            load.writes_one, load.writes_all, load.reads_one, load.reads_all
        );
    }
    let mut took = |what: String, took: &Took| {
        let _ = write!(
            page,
            "<p>{what} {:.1} s after its start. It had up to {} MiB of memory meanwhile, other nodes up to {} MiB.</p>",
            took.seconds, took.memory_peak_mib, took.others_peak_mib
        );
    };
    if let Some(found) = &report.catch_up {
        took(format!("A node that missed {} writes has them", found.count), found);
    }
    if let Some(found) = &report.bootstrap {
        took(format!("A new node has {} MiB", found.count), found);
    }
    page
}

fn bars(both: &Both, top: f64) -> String {
    let mut svg = format!("<svg viewBox='0 0 {} {}'>", WIDTH + 120.0, 2.0 * ROW + 8.0);
    let x = |us: u64| 80.0 + (WIDTH - 80.0) * us as f64 / top;
    for (at, (name, figures, colour)) in
        [("real", &both.real, "#2b6cb0"), ("simulated", &both.simulated, "#b7791f")].into_iter().enumerate()
    {
        let (y, lag) = (at as f64 * ROW, &figures.lag_last);
        let _ = write!(
            svg,
            "<text x=0 y={:.0}>{name}</text><rect x=80 y={:.0} width={:.1} height=13 fill={colour} opacity=.35 />\
             <rect x=80 y={:.0} width={:.1} height=13 fill={colour} /><text x={:.1} y={:.0}>{:.0} / {:.0}</text>",
            y + 12.0,
            y + 2.0,
            x(lag.p99_us) - 80.0,
            y + 2.0,
            x(lag.p50_us) - 80.0,
            x(lag.p99_us) + 6.0,
            y + 12.0,
            lag.p50_us as f64 / 1e3,
            lag.p99_us as f64 / 1e3
        );
    }
    let bound = x(both.real.bound.p50_us);
    svg + &format!("<line x1={bound:.1} x2={bound:.1} y1=0 y2={:.0} stroke=#c53030 stroke-width=2 /></svg>", 2.0 * ROW)
}
