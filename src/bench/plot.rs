//! A report as a picture: goodput by load, and each line's latency from p50 to p99. Plain SVG, so that it
//! opens anywhere and needs nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::Report;
use super::turns::{Line, Work};

const WIDTH: f64 = 1_100.0;
const PANEL: f64 = 420.0;
const TOP: f64 = 70.0;
const ROW: f64 = 22.0;
/// Told apart also by those who do not see red and green (Okabe and Ito's palette).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

pub fn svg(report: &Report) -> String {
    let mut colours: BTreeMap<&str, &str> = BTreeMap::new();
    for line in &report.lines {
        let next = COLOURS[colours.len() % COLOURS.len()];
        colours.entry(&line.design).or_insert(next);
    }
    let height = TOP + 40.0 + (report.lines.len() as f64 * ROW).max(300.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"20\" y=\"24\" font-size=\"15\">{}</text>",
        escape(&report.title)
    );
    goodput(&mut out, report, &colours, height - 40.0);
    latency(&mut out, report, &colours);
    out + "</svg>\n"
}

/// Left: done a second by load; what has no number of clients is a level line.
fn goodput(out: &mut String, report: &Report, colours: &BTreeMap<&str, &str>, bottom: f64) {
    let load = |line: &Line| match line.work {
        Work::Clients(clients) => Some(clients as f64),
        Work::Rate(rate) => Some(rate),
        Work::Alone => None,
    };
    let loads: Vec<f64> = report.lines.iter().filter_map(load).collect();
    let most = report.lines.iter().map(|l| l.per_second).fold(1.0, f64::max) * 1.05;
    let low = loads.iter().copied().fold(f64::INFINITY, f64::min).max(1.0);
    let high = loads.iter().copied().fold(low * 2.0, f64::max);
    let (left, right) = (80.0, PANEL);
    let x = |load: f64| left + (right - left) * (load / low).ln() / (high / low).ln();
    let y = |rate: f64| bottom - (bottom - TOP) * rate / most;
    let _ = write!(out, "<text x=\"20\" y=\"50\">{} a second, by load</text>", report.unit);
    for step in 0..=4 {
        let rate = most * f64::from(step) / 4.0;
        let _ = write!(
            out,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"74\" y=\"{1:.1}\" text-anchor=\"end\">{rate:.0}</text>",
            y(rate),
            y(rate) + 4.0
        );
    }
    let mut ticks = loads.clone();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.0}</text>",
            x(tick),
            bottom + 18.0
        );
    }
    for (design, colour) in colours {
        let of = report.lines.iter().filter(|line| line.design == *design);
        let mut points: Vec<(f64, f64)> =
            of.clone().filter_map(|line| Some((x(load(line)?), y(line.per_second)))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
        for line in of.filter(|line| load(line).is_none()) {
            let _ = write!(
                out,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"{colour}\" \
                 stroke-dasharray=\"6 4\"/>",
                y(line.per_second)
            );
        }
    }
}

/// Right: from p50 (dot) to p99 (bar's end) of each line, on a logarithmic scale.
fn latency(out: &mut String, report: &Report, colours: &BTreeMap<&str, &str>) {
    let measured = |line: &&Line| line.p99_ms > 0.0;
    let lines = || report.lines.iter().filter(measured);
    let low = lines().map(|l| l.p50_ms.max(0.01)).fold(f64::INFINITY, f64::min).min(1e6) / 1.5;
    let high = lines().map(|l| l.p99_ms).fold(low * 10.0, f64::max) * 1.2;
    let (left, right) = (PANEL + 230.0, WIDTH - 70.0);
    let x = |ms: f64| left + (right - left) * (ms.max(low) / low).ln() / (high / low).ln();
    let _ = write!(out, "<text x=\"{}\" y=\"50\">latency in ms: p50 to p99</text>", PANEL + 30.0);
    for (row, line) in report.lines.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 10.0;
        let colour = colours.get(line.design.as_str()).copied().unwrap_or("black");
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}, {}</text>",
            left - 10.0,
            y + 4.0,
            escape(&line.design),
            line.work.label()
        );
        if !measured(&line) {
            continue;
        }
        let (from, to) = (x(line.p50_ms), x(line.p99_ms));
        let _ = write!(
            out,
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" \
             stroke-width=\"6\"/><circle cx=\"{from:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            to + 6.0,
            y + 4.0,
            short(line.p99_ms)
        );
    }
}

fn short(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Pace;

    fn line(design: &str, work: Work, per_second: f64, p99_ms: f64) -> Line {
        Line {
            design: design.to_owned(),
            work,
            per_second,
            followed_per_second: per_second,
            behind_ms: 0.0,
            p50_ms: p99_ms / 2.0,
            p90_ms: p99_ms,
            p99_ms,
            max_ms: p99_ms,
            refused_each: 0.0,
            failed: 0,
            sold_out: false,
            rounds: vec![per_second],
        }
    }

    #[test]
    fn a_plot_is_well_formed_and_names_every_line() {
        let pace = Pace { rounds: 1, time: std::time::Duration::from_secs(1) };
        let mut report = Report::new("x", "a < b & c", "bookings", pace);
        let empty = svg(&report);
        roxmltree::Document::parse(&empty).unwrap();
        report.lines = vec![
            line("naive", Work::Clients(64), 5_000.0, 20.0),
            line("marquee", Work::Clients(4096), 60_000.0, 80.0),
            line("limit", Work::Alone, 70_000.0, 0.0),
        ];
        let picture = svg(&report);
        let document = roxmltree::Document::parse(&picture).unwrap();
        let texts: Vec<&str> = document.descendants().filter_map(|n| n.text()).collect();
        for expected in ["a < b & c", "naive, 64", "marquee, 4096", "limit, 1"] {
            assert!(texts.contains(&expected), "{expected}: {texts:?}");
        }
        assert!(!picture.contains("NaN") && !empty.contains("NaN"), "{picture}");
    }
}
