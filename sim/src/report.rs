//! The report: one page that shows a run. A template, a style, scripts that draw, the outline of the land, and the
//! outcome itself; it loads nothing, so it can be mailed, archived and printed. Knows nothing of how the run went.

use crate::outcome::Outcome;

const TEMPLATE: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/style.css");
const LAND: &str = include_str!("report/land.svg");
const SCRIPT: &str = concat!(
    include_str!("report/draw.js"),
    include_str!("report/map.js"),
    include_str!("report/charts.js"),
    include_str!("report/heat.js"),
    include_str!("report/tables.js"),
    include_str!("report/main.js"),
);

/// The page, HTML.
pub fn page(outcome: &Outcome) -> String {
    let data = serde_json::to_string(outcome).expect("an outcome is plain data");
    let mut page = String::with_capacity(data.len() + TEMPLATE.len() + STYLE.len() + LAND.len() + SCRIPT.len());
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("the template closes what it opens");
        page.push_str(before);
        match name {
            "title" => page.push_str(&escaped(&outcome.summary.scenario)),
            "style" => page.push_str(STYLE),
            // Within HTML an SVG needs no name space.
            "land" => page.push_str(&LAND.replace(r#" xmlns="http://www.w3.org/2000/svg""#, "")),
            // No string of the outcome can end its element.
            "outcome" => page.push_str(&data.replace('<', "\\u003c")),
            "script" => page.push_str(SCRIPT),
            _ => unreachable!("the template asks for {name}"),
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Details, NodeBytes, Quantiles, Spread, Summary, Violation};
    use crate::places::{Delays, spread};

    /// As large as a run of so many PoPs gets, with lags that the network could have.
    fn sample(pops: usize) -> Outcome {
        let places = spread(pops);
        let delays = Delays::between(&places);
        let lag_us = |from: usize, to: usize| if from == to { 0 } else { delays.one_way_us(from, to) * 12 / 10 };
        let spreads = (0..24)
            .map(|write| Spread {
                write,
                origin: write as usize % pops,
                accepted_us: write * 1_234_567,
                arrivals_us: (0..pops).map(|to| Some(lag_us(write as usize % pops, to))).collect(),
                informers: (0..pops).map(|node| (node % 3 == 0).then_some(node / 2)).collect(),
            })
            .collect();
        let bytes = |node: usize| [("records".to_owned(), 1_000_000 + node as u64), ("sync".to_owned(), 5)].into();
        Outcome {
            summary: Summary {
                scenario: "</script><script>alert('&')</script>".into(),
                nodes: pops,
                pops,
                violations: vec![Violation {
                    checker: "equal".into(),
                    at_us: 1,
                    what: "<!-- \u{2028} \"key\" \\ <img>".into(),
                }],
                lag_last: Quantiles::of((1..1000).collect()),
                ..Summary::default()
            },
            details: Details {
                nodes: (0..pops).collect(),
                matrix: (0..pops).map(|from| (0..pops).map(|to| lag_us(from, to) as u32).collect()).collect(),
                node_bytes: (0..pops)
                    .map(|node| NodeBytes { node, sent: bytes(node), received: bytes(node) })
                    .collect(),
                bound_relayed_us: vec![170_000; pops],
                bound_direct_us: vec![190_000; pops],
                places,
                spreads,
                ..Details::default()
            },
        }
    }

    #[test]
    fn the_outcome_reads_back_whatever_it_says() {
        let outcome = sample(5);
        let page = page(&outcome);
        let (_, data) = page.split_once(r#"id="outcome">"#).expect("it is embedded");
        let (data, _) = data.split_once("</script>").expect("it ends");
        assert_eq!(serde_json::from_str::<Outcome>(data).expect("it is JSON"), outcome);
        for tag in ["<script", "</script", "<img", "<!--"] {
            assert_eq!(page.matches(tag).count(), TEMPLATE.matches(tag).count(), "{tag}");
        }
        assert!(page.contains("<title>&lt;/script&gt;"));
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page(&sample(3));
        for loads in ["://", " src=", "<link", "@import", "url(", "fetch(", "import("] {
            assert!(!page.contains(loads), "{loads}");
        }
    }

    #[test]
    fn a_page_for_330_pops_can_be_mailed() {
        let bytes = page(&sample(330)).len();
        assert!((500_000..2_000_000).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn scripts_name_only_what_the_page_has() {
        for id in SCRIPT.split("$(\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(id, _)| id) {
            assert!(TEMPLATE.contains(&format!("id=\"{id}\"")), "{id}");
        }
        assert!(SCRIPT.matches("$(\"").count() > 50);
    }
}
