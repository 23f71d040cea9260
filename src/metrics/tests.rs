//! The list of metrics, its table in the docs, and a page.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_of_the_docs_is_this_list() {
    let docs = include_str!("../../docs/OPERATIONS.md");
    let table: String = ALL
        .iter()
        .map(|metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help)
        })
        .collect();
    assert!(docs.contains(&table), "put this into docs/OPERATIONS.md, as the table of metrics:\n{table}");
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in ALL {
        assert!(names.insert(metric.name), "{} is there twice", metric.name);
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(is_name(metric.name) && metric.labels.iter().all(|label| is_name(label)), "{}", metric.name);
        assert!(metric.name.starts_with("starling_") || metric.name.starts_with("process_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(!metric.help.contains(['\\', '\n', '|']), "{}: would need escapes", metric.name);
    }
}

#[test]
fn a_page() {
    let metrics = Metrics::default();
    metrics.answered("value", "GET", 200, Duration::from_millis(3));
    metrics.answered("value", "GET", 200, Duration::from_millis(30));
    metrics.answered("value", "GET", 404, Duration::ZERO);
    metrics.write_arrived(NodeId(7), Duration::from_millis(200));
    metrics.alarmed("clock_skew");
    let mut page = Page::default();
    metrics.show(&mut page, |_| "a \"name\"\\".to_owned());
    page.sample(&ENTRIES, &[], 12);
    let text = page.finish();
    for line in [
        "# TYPE starling_http_requests_total counter",
        "starling_http_requests_total{route=\"value\",method=\"GET\",code=\"200\"} 2",
        "starling_http_requests_total{route=\"value\",method=\"GET\",code=\"404\"} 1",
        "starling_http_request_duration_seconds_bucket{route=\"value\",method=\"GET\",le=\"0.005\"} 2",
        "starling_http_request_duration_seconds_bucket{route=\"value\",method=\"GET\",le=\"+Inf\"} 3",
        "starling_http_request_duration_seconds_sum{route=\"value\",method=\"GET\"} 0.033",
        "starling_http_request_duration_seconds_count{route=\"value\",method=\"GET\"} 3",
        "starling_convergence_lag_seconds_count{origin=\"0000000000000007\",name=\"a \\\"name\\\"\\\\\"} 1",
        "starling_alarms_total{alarm=\"clock_skew\"} 1",
        "starling_entries 12",
        "# HELP starling_ready 1 if the node has joined and caught up, as /readyz tells; else 0.",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }
    for metric in ALL {
        assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1, "{}", metric.name);
    }
}
