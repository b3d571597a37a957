//! Reading films from CSV and JSON lines. Pure: bytes and today's date in, each row's facts or fault out.
//!
//! Real files have gaps. What is missing is unknown; what is wrong in a way that can be put right is put
//! right with a warning; the rest is refused with its line and reason, and no row touches another.

use std::collections::{HashMap, HashSet};

use common::Problem;
use jiff::civil::Date;
use serde::Deserialize;

use super::dates::read_date;
use super::mend::mend;
use super::rules::{Facts, article_first, tidy};

/// Columns that are read, and those of film lists that are known and not kept.
const COLUMNS: [&str; 12] = [
    "title",
    "release_date",
    "runtime_min",
    "rating",
    "genre",
    "director",
    "distributor",
    "cast",
    "synopsis",
    "source",
    "imdb_rating",
    "imdb_votes",
];

/// One row of the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it starts; the first line is 1.
    pub line: u64,
    /// As it was given; for the report.
    pub title: Option<String>,
    pub facts: Result<Facts, Refusal>,
    /// What was put right.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable.
    pub code: &'static str,
    pub reason: String,
}

impl Refusal {
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// A row's fields as text, before they mean anything.
#[derive(Clone, Debug, Default)]
struct Raw {
    title: String,
    release_date: String,
    runtime_min: String,
    rating: String,
    genre: String,
    director: String,
    distributor: String,
    cast: Vec<String>,
    synopsis: String,
    /// Only to tell that a film is out already.
    votes: String,
}

/// CSV with a header line. Fails when the header cannot be used.
pub fn csv(body: &[u8], today: Date) -> Result<Vec<Row>, Problem> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(body);
    let header = reader.byte_headers().map_err(|e| Problem::invalid("header", e.to_string()))?.clone();
    let columns = columns(&header)?;
    let mut rows = Vec::new();
    let mut record = csv::ByteRecord::new();
    let mut seen = Seen::default();
    let mut lines = Lines { body, at: 0, line: 1 };
    while reader
        .read_byte_record(&mut record)
        .map_err(|e| Problem::unprocessable("malformed-csv", format!("the input is not CSV: {e}")))?
    {
        let line = lines.of_record(&record);
        rows.push(seen.first_only(match raw_of_record(&record, &columns) {
            Ok(raw) => read_row(line, raw, today),
            Err(refusal) => Row { line, title: None, facts: Err(refusal), warnings: Vec::new() },
        }));
    }
    Ok(rows)
}

/// Counts lines along the input. The reader's own count is one behind where lines end in CR LF: it stands
/// between the two.
struct Lines<'a> {
    body: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line on which a record starts; records come in order.
    fn of_record(&mut self, record: &csv::ByteRecord) -> u64 {
        let start = record.position().map_or(0, csv::Position::byte);
        let mut start = usize::try_from(start).unwrap_or(usize::MAX).min(self.body.len());
        while matches!(self.body.get(start), Some(b'\r' | b'\n')) {
            start += 1;
        }
        while self.at < start {
            let lone_cr = self.body[self.at] == b'\r' && self.body.get(self.at + 1) != Some(&b'\n');
            self.line += u64::from(self.body[self.at] == b'\n' || lone_cr);
            self.at += 1;
        }
        self.line
    }
}

fn columns(header: &csv::ByteRecord) -> Result<Vec<&'static str>, Problem> {
    let mut columns = Vec::new();
    for name in header {
        let name = String::from_utf8_lossy(name).trim().to_lowercase();
        let Some(column) = COLUMNS.iter().find(|c| **c == name) else {
            let shown: String = name.chars().take(60).collect();
            return Err(Problem::invalid(
                "header",
                format!("there is no column `{shown}`; known are {COLUMNS:?}"),
            ));
        };
        if columns.contains(column) {
            return Err(Problem::invalid("header", format!("the column `{column}` is there twice")));
        }
        columns.push(*column);
    }
    if !columns.contains(&"title") {
        return Err(Problem::invalid("header", "the first line must name the columns, `title` among them"));
    }
    Ok(columns)
}

fn raw_of_record(record: &csv::ByteRecord, columns: &[&'static str]) -> Result<Raw, Refusal> {
    if record.len() != columns.len() {
        let reason = format!("has {} fields, the header has {}", record.len(), columns.len());
        return Err(Refusal::new("wrong-field-count", reason));
    }
    let mut raw = Raw::default();
    for (column, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value)
            .map_err(|_| Refusal::new("not-utf8", format!("`{column}` is not UTF-8")))?
            .to_owned();
        match *column {
            "title" => raw.title = value,
            "release_date" => raw.release_date = value,
            "runtime_min" => raw.runtime_min = value,
            "rating" => raw.rating = value,
            "genre" => raw.genre = value,
            "director" => raw.director = value,
            "distributor" => raw.distributor = value,
            "cast" => raw.cast = value.split([';', '|']).map(str::to_owned).collect(),
            "synopsis" => raw.synopsis = value,
            "imdb_votes" => raw.votes = value,
            _ => {}
        }
    }
    Ok(raw)
}

/// A text, or a number where people write numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Integer(i64),
    Float(f64),
}

impl Text {
    fn into_string(self) -> String {
        match self {
            Self::String(text) => text,
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow {
    title: Option<Text>,
    release_date: Option<Text>,
    runtime_min: Option<Text>,
    rating: Option<String>,
    genre: Option<String>,
    director: Option<String>,
    distributor: Option<String>,
    #[serde(default)]
    cast: Option<Vec<String>>,
    synopsis: Option<String>,
    #[serde(rename = "source")]
    _source: Option<String>,
    #[serde(rename = "imdb_rating")]
    _imdb_rating: Option<Text>,
    imdb_votes: Option<Text>,
}

/// One JSON object a line, with the columns' names.
pub fn json_lines(body: &[u8], today: Date) -> Vec<Row> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut seen = Seen::default();
    let lines = body.split(|b| *b == b'\n').zip(1u64..).filter(|(line, _)| !line.trim_ascii().is_empty());
    let row = |(text, line): (&[u8], u64)| match serde_json::from_slice::<JsonRow>(text) {
        Ok(row) if text.trim_ascii_start().starts_with(b"{") => {
            let text = |t: Option<Text>| t.map(Text::into_string).unwrap_or_default();
            let raw = Raw {
                title: text(row.title),
                release_date: text(row.release_date),
                runtime_min: text(row.runtime_min),
                rating: row.rating.unwrap_or_default(),
                genre: row.genre.unwrap_or_default(),
                director: row.director.unwrap_or_default(),
                distributor: row.distributor.unwrap_or_default(),
                cast: row.cast.unwrap_or_default(),
                synopsis: row.synopsis.unwrap_or_default(),
                votes: text(row.imdb_votes),
            };
            read_row(line, raw, today)
        }
        other => {
            let why = other.err().map_or_else(|| "must be a JSON object".to_owned(), |e| e.to_string());
            let why = why.split(" at line ").next().unwrap_or_default().to_owned();
            Row { line, title: None, facts: Err(Refusal::new("malformed-json", why)), warnings: Vec::new() }
        }
    };
    lines.map(row).map(|row| seen.first_only(row)).collect()
}

/// Which film stood on which line.
#[derive(Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    /// Refuses the second row of the same film.
    fn first_only(&mut self, mut row: Row) -> Row {
        let Ok(facts) = &row.facts else { return row };
        let first = *self.0.entry(facts.natural_key()).or_insert(row.line);
        if first != row.line {
            row.facts = Err(Refusal::new("duplicate", format!("the same film is on line {first}")));
        }
        row
    }
}

fn read_row(line: u64, raw: Raw, today: Date) -> Row {
    let mut warnings = Vec::new();
    let title = tidy(&raw.title);
    let shown = title.as_ref().map(|t| t.chars().take(300).collect());
    let facts = read_facts(raw, title, today, &mut warnings);
    Row { line, title: shown, facts, warnings }
}

fn read_facts(
    raw: Raw,
    title: Option<String>,
    today: Date,
    warnings: &mut Vec<String>,
) -> Result<Facts, Refusal> {
    let mut title = title.ok_or_else(|| Refusal::new("missing-title", "the title is missing"))?;
    if let Some(mended) = mend(&title) {
        warnings.push(format!("the title's lost accents were mended: `{title}` → `{mended}`"));
        title = mended;
    }
    let moved = article_first(&title);
    if moved != title {
        warnings.push(format!("the title's article was put first: `{title}` → `{moved}`"));
        title = moved;
    }
    let is_out = raw.votes.trim().parse::<u64>().is_ok_and(|votes| votes > 0);
    let release_date = read_date(&raw.release_date, today, is_out, warnings)?;
    let runtime_min = read_runtime(&raw.runtime_min, warnings)?;
    let facts = Facts {
        title,
        release_date,
        runtime_min,
        rating: Some(raw.rating),
        genre: Some(raw.genre),
        director: Some(raw.director),
        distributor: Some(raw.distributor),
        cast: distinct(raw.cast),
        synopsis: Some(raw.synopsis),
    }
    .tidied();
    match facts.faults().into_iter().next() {
        None => Ok(facts),
        Some(fault) => Err(Refusal::new("invalid-field", format!("`{}` {}", fault.field, fault.message))),
    }
}

fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.into_iter().filter(|name| seen.insert(name.trim().to_lowercase())).collect()
}

fn read_runtime(text: &str, warnings: &mut Vec<String>) -> Result<Option<i32>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        let shown: String = text.chars().take(40).collect();
        Refusal::new("bad-runtime", format!("`runtime_min` is not a number of minutes: `{shown}`"))
    };
    // Spreadsheets write whole numbers as `95.0`.
    let whole = text.split_once('.').map_or(
        text,
        |(whole, rest)| {
            if rest.bytes().all(|b| b == b'0') { whole } else { text }
        },
    );
    match whole.parse::<i32>().map_err(|_| bad())? {
        0 => {
            warnings.push("a runtime of 0 was taken as unknown".into());
            Ok(None)
        }
        minutes => Ok(Some(minutes)),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
