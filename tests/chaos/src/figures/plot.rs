//! A part as a picture: each figure on a scale of its own, a dot a round, a bar at the median and, where there is
//! a target, a line at it. Plain SVG, so that it opens anywhere and needs nothing.

use std::fmt::Write;

use super::report::{Figure, Part, short};

const WIDTH: f64 = 900.0;
const TOP: f64 = 60.0;
const ROW: f64 = 54.0;
const LEFT: f64 = 20.0;
const RIGHT: f64 = 780.0;
// Told apart also by those who do not see red and green (Okabe and Ito's palette).
const SEEN: &str = "#0072b2";
const WANTED: &str = "#d55e00";

pub fn svg(part: &Part) -> String {
    let height = TOP + ROW * part.figures.len() as f64 + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\
         <text x=\"{LEFT}\" y=\"42\" fill=\"#555\">dots: rounds; bar: median; dashed: target</text>",
        escape(&part.title)
    );
    for (no, figure) in part.figures.iter().enumerate() {
        row(&mut out, figure, TOP + ROW * no as f64);
    }
    out + "</svg>\n"
}

fn row(out: &mut String, figure: &Figure, top: f64) {
    let wanted = figure.target.as_ref().map(|target| target.wanted);
    let most = figure.rounds.iter().copied().chain(wanted).fold(0.0, f64::max);
    let scale = if most > 0.0 { most * 1.1 } else { 1.0 };
    let x = |value: f64| LEFT + (RIGHT - LEFT) * value / scale;
    let (text, line) = (top + 14.0, top + 30.0);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"{text:.1}\">{0}</text>\
         <line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{line:.1}\" y2=\"{line:.1}\" stroke=\"#ddd\"/>\
         <rect x=\"{LEFT}\" y=\"{1:.1}\" width=\"{2:.1}\" height=\"8\" fill=\"{SEEN}\" fill-opacity=\"0.35\"/>\
         <text x=\"{3:.1}\" y=\"{4:.1}\">{5} {6}</text>",
        escape(&figure.what),
        line - 4.0,
        (x(figure.median) - LEFT).max(0.0),
        RIGHT + 8.0,
        line + 4.0,
        short(figure.median),
        escape(figure.unit),
    );
    for round in &figure.rounds {
        let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{line:.1}\" r=\"4\" fill=\"{SEEN}\"/>", x(*round));
    }
    if let Some(wanted) = wanted {
        let at = x(wanted);
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{0:.1}\" y2=\"{1:.1}\" stroke=\"{WANTED}\" stroke-width=\"2\" \
             stroke-dasharray=\"4 3\"/><text x=\"{at:.1}\" y=\"{text:.1}\" text-anchor=\"middle\" fill=\"{WANTED}\">{2}\
             </text>",
            line - 12.0,
            line + 12.0,
            short(wanted),
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_every_figure_with_its_rounds_and_targets() {
        let mut part = Part::new("x", "a < b & c");
        part.add("first success", "s", vec![4.0, 6.0, 5.5]);
        part.at_most(5.0);
        part.add("failed", "requests", vec![0.0]);
        let picture = svg(&part);
        assert!(picture.contains("a &lt; b &amp; c") && picture.contains("first success"));
        assert_eq!(picture.matches("<circle").count(), 4);
        assert_eq!(picture.matches("stroke-dasharray").count(), 1);
        assert!(!picture.contains("NaN"), "{picture}");
    }
}
