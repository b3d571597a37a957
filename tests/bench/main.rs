//! `marquee bench all --short`: every part runs, every design is there, and what is counted is more than
//! nothing. Ratios are not looked at: a machine under test is no place to measure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Part → the designs that it must have measured.
const PARTS: &[(&str, &[&str])] = &[
    ("hot", &["naive", "best single statement", "lock service", "marquee", "limit", "limit, journal alone"]),
    ("hot-popular", &["naive", "best single statement", "lock service", "marquee"]),
    ("hot-open", &["naive", "best single statement", "lock service", "marquee"]),
    ("spread", &["naive", "best single statement", "lock service", "marquee", "limit"]),
    ("hot-http", &["naive, HTTP", "marquee, HTTP"]),
    ("spread-http", &["naive, HTTP", "marquee, HTTP"]),
    ("latency", &["bare commit", "marquee", "marquee, HTTP"]),
    (
        "read",
        &[
            "bare hyper, 300 seats",
            "marquee, 300 seats",
            "marquee, 5000 seats",
            "marquee, by gateway, 300 seats",
        ],
    ),
    ("watch", &["marquee"]),
    ("mixed", &["list shows", "seat map", "reserve"]),
    ("flat", &["1000 entries", "10000 entries"]),
];

#[test]
fn every_part_runs_and_counts_something() {
    let out = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_marquee"))
        .args(["bench", "all", "--short", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let figures = std::fs::read(out.path().join("figures.json")).unwrap();
    let figures: Value = serde_json::from_slice(&figures).unwrap();
    let reports = figures["reports"].as_array().unwrap();
    assert_eq!(names(reports, "name"), PARTS.iter().map(|(part, _)| *part).collect::<Vec<_>>(), "{said}");
    for (report, (part, designs)) in reports.iter().zip(PARTS) {
        let lines = report["lines"].as_array().unwrap();
        let measured = names(lines, "design");
        for design in *designs {
            assert!(measured.contains(design), "{part}: no {design} in {measured:?}");
        }
        for line in lines {
            sane(part, line);
        }
        drawn(&out.path().join(format!("{part}.svg")));
    }
}

fn names<'a>(list: &'a [Value], key: &str) -> Vec<&'a str> {
    list.iter().map(|item| item[key].as_str().unwrap()).collect()
}

fn sane(part: &str, line: &Value) {
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{part}: no {key} in {line}"));
    assert!(number("per_second") > 0.0, "{part}: {line}");
    assert!(number("followed_per_second") <= number("per_second"), "{part}: {line}");
    let percentiles = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(number);
    assert!(percentiles.is_sorted(), "{part}: {line}");
    // The limit is a rate, nothing is asked there.
    let asked = !line["design"].as_str().unwrap().starts_with("limit");
    assert_eq!(percentiles[0] > 0.0, asked, "{part}: {line}");
    assert_eq!(line["failed"], 0, "{part}: {line}");
}

fn drawn(file: &Path) {
    let picture = std::fs::read_to_string(file).unwrap();
    roxmltree::Document::parse(&picture).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
