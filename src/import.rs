//! `marquee import movies`: a CSV file of films, sent in pieces so that one sees it move, each bad row told
//! with its line in the file and its reason. Repeating it doubles nothing: the service recognises a film.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;

use crate::api::Api;
use crate::launcher::Progress;

/// Rows in one request.
const PIECE_ROWS: usize = 400;

/// What became of the rows.
#[derive(Debug, Default)]
pub struct Summary {
    /// Outcome → rows, in the service's own words (`created`, `unchanged`, …).
    pub outcomes: BTreeMap<String, usize>,
    pub bad: Vec<BadRow>,
    /// The title of the film that came in last.
    pub last_created: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct BadRow {
    /// In the file, the header being line 1.
    pub line: u64,
    pub title: String,
    pub reason: String,
}

impl Summary {
    pub fn kept(&self) -> usize {
        self.outcomes.iter().filter(|(outcome, _)| *outcome != REJECTED).map(|(_, rows)| rows).sum()
    }
}

const REJECTED: &str = "rejected";

/// Some rows of the file with the header before them, and where they stood.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    csv: Vec<u8>,
    rows: Vec<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    line: u64,
    title: String,
}

/// Sends the whole file as whoever `api` is signed in as; the bar moves by rows.
pub async fn movies(api: &Api, file: &[u8], progress: &Progress) -> anyhow::Result<Summary> {
    let pieces = pieces(file)?;
    let total: usize = pieces.iter().map(|p| p.rows.len()).sum();
    progress.add_total(total as u64);
    progress.message(&format!("importing {total} films"));
    let mut summary = Summary::default();
    for piece in pieces {
        let answer = api.upload("/v1/movies/import", "text/csv", piece.csv.clone()).await?;
        tally(&answer, &piece, &mut summary)?;
        progress.tick(piece.rows.len() as u64);
    }
    summary.bad.sort_by_key(|bad| bad.line);
    Ok(summary)
}

/// Cuts the file between rows. Rows go on exactly as they are: judging them is the service's part. Rows that
/// could be the same film travel together, whatever lies between them in the file, so that the service can
/// tell that they are twice there.
fn pieces(file: &[u8]) -> anyhow::Result<Vec<Piece>> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(file);
    let mut records = reader.byte_records();
    let header = records.next().context("the file is empty; its first line should name the columns")?;
    let header = header.context("the file is not CSV")?;
    let title_column = header.iter().position(|name| name.trim_ascii().eq_ignore_ascii_case(b"title"));
    let mut rows = Vec::new();
    let mut lines = Lines { file, at: 0, line: 1 };
    for record in records {
        let record = record.context("the file is not CSV")?;
        let title = title_column.and_then(|i| record.get(i)).unwrap_or_default();
        let title = String::from_utf8_lossy(title).into_owned();
        let likeness: String = title.chars().filter(|c| c.is_alphanumeric()).collect();
        let line = lines.at(record.position().map_or(0, csv::Position::byte));
        rows.push((likeness.to_lowercase(), record, Origin { line, title }));
    }
    // Stable: the first of two stays the first.
    rows.sort_by(|a, b| a.0.cmp(&b.0));

    let mut pieces = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        writer.write_byte_record(&header)?;
        let mut origins = Vec::new();
        let mut last = None;
        while let Some((likeness, record, origin)) =
            rows.next_if(|(likeness, ..)| origins.len() < PIECE_ROWS || last.as_ref() == Some(likeness))
        {
            writer.write_byte_record(&record)?;
            origins.push(origin);
            last = Some(likeness);
        }
        let csv =
            writer.into_inner().map_err(|e| anyhow::anyhow!("a piece cannot be made: {}", e.error()))?;
        pieces.push(Piece { csv, rows: origins });
    }
    Ok(pieces)
}

/// Counts lines up to a place in the file. The reader's own count is one behind where lines end in CR LF.
struct Lines<'a> {
    file: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the record that the reader says begins at `byte`; bytes may only grow.
    fn at(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        while self.at < self.file.len() && (self.at < byte || matches!(self.file[self.at], b'\r' | b'\n')) {
            self.line += u64::from(self.file[self.at] == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// Adds one answer, its line numbers turned back into the file's.
fn tally(answer: &Value, piece: &Piece, summary: &mut Summary) -> anyhow::Result<()> {
    let rows = answer["rows"].as_array().context("the service's answer does not tell the rows' outcomes")?;
    let mut lines_of_piece = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(piece.csv.as_slice());
    for (record, origin) in reader.byte_records().zip(&piece.rows) {
        lines_of_piece.insert(record?.position().map_or(0, csv::Position::line), origin);
    }
    for row in rows {
        let outcome = row["outcome"].as_str().unwrap_or("unknown");
        *summary.outcomes.entry(outcome.to_owned()).or_default() += 1;
        if outcome == "created" {
            summary.last_created = row["title"].as_str().map(str::to_owned);
        }
        if outcome == REJECTED {
            let origin = row["line"].as_u64().and_then(|line| lines_of_piece.get(&line));
            summary.bad.push(BadRow {
                line: origin.map_or(0, |o| o.line),
                title: origin.map(|o| o.title.clone()).unwrap_or_default(),
                reason: reason(row, &lines_of_piece),
            });
        }
    }
    Ok(())
}

/// The service's words; a line that they end with is one of the piece's and becomes the file's.
fn reason(row: &Value, lines_of_piece: &BTreeMap<u64, &Origin>) -> String {
    let reason = row["reason"].as_str().unwrap_or("no reason given");
    let words = reason.trim_end_matches(|c: char| c.is_ascii_digit());
    match reason[words.len()..].parse().ok().and_then(|line: u64| lines_of_piece.get(&line)) {
        Some(other) if words.ends_with("line ") => format!("{words}{}", other.line),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\u{feff}title,runtime_min\n\"Two\nlines\",90\n,100\nPlain,x\n";

    fn lines(piece: &Piece) -> Vec<u64> {
        piece.rows.iter().map(|r| r.line).collect()
    }

    #[test]
    fn pieces_keep_rows_whole_and_know_their_lines() {
        let pieces = pieces(FILE.as_bytes()).unwrap();
        assert_eq!(pieces.len(), 1);
        assert_eq!(lines(&pieces[0]), [4, 5, 2]);
        let csv = String::from_utf8_lossy(&pieces[0].csv);
        assert_eq!(csv, "title,runtime_min\n,100\nPlain,x\n\"Two\nlines\",90\n");
        assert!(super::pieces(b"").is_err());
        assert!(super::pieces(b"title\n").unwrap().is_empty());
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        for end in ["\n", "\r\n"] {
            let file = ["title,genre", "A,x", "", "\"B\nB\",y", "C,z"].join(end);
            let pieces = pieces(file.as_bytes()).unwrap();
            assert_eq!(lines(&pieces[0]), [2, 4, 6], "{end:?}");
        }
    }

    #[test]
    fn the_same_film_is_never_torn_apart() {
        let mut long = String::from("title\n");
        for i in 0..1001 {
            long += &format!("Film {i:04}\n");
        }
        // Just past the first piece's end, and at the file's.
        long += "FILM 0399!\nfilm-0399\n";
        let pieces = pieces(long.as_bytes()).unwrap();
        assert_eq!(pieces.iter().map(|p| p.rows.len()).collect::<Vec<_>>(), [402, 400, 201]);
        assert_eq!(lines(&pieces[0])[399..], [401, 1003, 1004]);
    }

    #[test]
    fn bad_rows_are_told_with_the_files_own_line() {
        let mut piece = pieces(FILE.as_bytes()).unwrap().remove(0);
        for row in &mut piece.rows {
            row.line += 400;
        }
        let answer = serde_json::json!({"rows": [
            {"line": 2, "outcome": "rejected", "reason": "title is missing"},
            {"line": 3, "outcome": "created"},
            {"line": 4, "outcome": "rejected", "reason": "the same film is on line 3"},
        ]});
        let mut summary = Summary::default();
        tally(&answer, &piece, &mut summary).unwrap();
        assert_eq!(summary.kept(), 1);
        let bad =
            |line, title: &str, reason: &str| BadRow { line, title: title.into(), reason: reason.into() };
        assert_eq!(
            summary.bad,
            [bad(404, "", "title is missing"), bad(402, "Two\nlines", "the same film is on line 405"),]
        );
    }
}
