use super::*;

fn today() -> Date {
    jiff::civil::date(2026, 11, 20)
}

const HEADER: &str =
    "title,release_date,runtime_min,rating,genre,director,distributor,source,imdb_rating,imdb_votes\r\n";

fn one(line: &str) -> Row {
    let mut rows = csv(format!("{HEADER}{line}\r\n").as_bytes(), today()).unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn code(row: &Row) -> &'static str {
    row.facts.as_ref().unwrap_err().code
}

fn date_of(row: &Row) -> String {
    row.facts.as_ref().unwrap().release_date.unwrap().to_string()
}

#[test]
fn rows_of_the_real_file_are_read() {
    let row = one("\"First Love, Last Rites\",Aug 07 1998,,R,Drama,,Strand,,6.9,207");
    let facts = row.facts.as_ref().unwrap();
    assert_eq!(facts.title, "First Love, Last Rites");
    assert_eq!(facts.release_date, Some(jiff::civil::date(1998, 8, 7)));
    assert_eq!((facts.runtime_min, facts.director.as_deref()), (None, None), "gaps are unknown");
    assert_eq!(facts.rating.as_deref(), Some("R"));
    assert_eq!((row.line, row.warnings.len()), (2, 0));

    let row = one("Gone with the Wind,Dec 15 2039,222,G,Drama,George Cukor,MGM,,8.2,78947");
    assert_eq!(row.facts.as_ref().unwrap().runtime_min, Some(222));
    assert_eq!(date_of(&row), "1939-12-15");
    assert!(row.warnings[0].contains("2039-12-15"), "{:?}", row.warnings);

    let row = one("1776,Nov 09 1972,,,,,,,,");
    assert_eq!(row.facts.unwrap().title, "1776");
    assert_eq!(
        code(&one(",Nov 03 2006,85,Not Rated,Thriller/Suspense,,IFC Films,,6.6,11986")),
        "missing-title"
    );
    assert_eq!(code(&one("   ,Nov 03 2006,85,,,,,,,")), "missing-title");
}

#[test]
fn dates_in_the_future_are_read_a_century_earlier_where_that_is_sure() {
    // Far ahead, with no other evidence.
    assert_eq!(date_of(&one("\"Charge of the Light Brigade, The\",Oct 20 2036,,,,,,,,")), "1936-10-20");
    // Near, but people have voted on it.
    assert_eq!(date_of(&one("Wings,Aug 12 2027,,,,,,,7.9,3035")), "1927-08-12");
    // Near, and nothing speaks against it.
    let soon = one("A Film To Come,Aug 12 2027,,,,,,,,");
    assert_eq!((date_of(&soon).as_str(), soon.warnings.len()), ("2027-08-12", 0));
    // Out for a year: nothing shows that it was meant otherwise.
    assert_eq!(date_of(&one("Ben-Hur,Dec 30 2025,,,,,,,8.2,58510")), "2025-12-30");
    assert_eq!(date_of(&one("Leap,Feb 29 2032,,,,,,,,")), "1932-02-29");
}

#[test]
fn dates_are_read_as_people_write_them() {
    for (text, expected) in [
        ("Jun 12 1998", "1998-06-12"),
        ("\"June 12, 1998\"", "1998-06-12"),
        ("12 Jun 1998", "1998-06-12"),
        ("12-Jun-98", "1998-06-12"),
        ("Sept 3 05", "2005-09-03"),
        ("1998-06-12", "1998-06-12"),
        ("1998", "1998-01-01"),
    ] {
        assert_eq!(date_of(&one(&format!("X,{text},,,,,,,,"))), expected, "{text}");
    }
    for bad in
        ["soon", "Feb 30 1999", "13/13/13", "Foo 12 1998", "Jun 12 199x", "99999", "Jun Jun 1998", "-1"]
    {
        assert_eq!(code(&one(&format!("X,{bad},,,,,,,,"))), "bad-date", "{bad}");
    }
    assert_eq!(code(&one("X,Jun 12 0098,,,,,,,,")), "invalid-field");
    assert_eq!(one("X,,,,,,,,,").facts.unwrap().release_date, None);
}

#[test]
fn runtimes_are_minutes_or_unknown() {
    let runtime = |text: &str| one(&format!("X,,{text},,,,,,,")).facts.map(|f| f.runtime_min);
    assert_eq!(runtime("95"), Ok(Some(95)));
    assert_eq!(runtime("95.0"), Ok(Some(95)));
    assert_eq!(runtime("0"), Ok(None));
    for bad in ["95 min", "1h", "95.5", "99999999999", "NaN"] {
        assert_eq!(runtime(bad).unwrap_err().code, "bad-runtime", "{bad}");
    }
    for bad in ["-5", "5000"] {
        assert_eq!(runtime(bad).unwrap_err().code, "invalid-field", "{bad}");
    }
}

#[test]
fn a_bad_row_spoils_no_other() {
    let body = b"\xef\xbb\xbfTitle,release_date\r\nA,Jan 01 2001\r\n\r\n\"B\nB\",Jan 01 2002\r\nonly one\r\n\
                 \xff\xfe,Jan 01 2003\r\nC,Jan 01 2004\r\na!,Jan 1 2001\r\nNul\0,\r\n";
    let rows = csv(body, today()).unwrap();
    let seen: Vec<_> =
        rows.iter().map(|r| (r.line, r.facts.as_ref().map_or_else(|e| e.code, |_| "ok"))).collect();
    assert_eq!(
        seen,
        [
            (2, "ok"),
            (4, "ok"),
            (6, "wrong-field-count"),
            (7, "not-utf8"),
            (8, "ok"),
            (9, "duplicate"),
            (10, "invalid-field")
        ]
    );
    assert!(rows[5].facts.as_ref().unwrap_err().reason.contains("line 2"));
    assert_eq!(rows[1].title.as_deref(), Some("B B"));
}

#[test]
fn a_header_that_cannot_be_used_is_refused() {
    for bad in ["", "name,date\n", "title,title\n", "release_date\n", "title,budget\nA,1\n", "\u{feff}"] {
        assert!(csv(bad.as_bytes(), today()).is_err(), "{bad:?}");
    }
    assert_eq!(csv(b"title\n", today()).unwrap(), []);
}

#[test]
fn json_lines_are_read_alike() {
    let body = r#"{"title":"Following","release_date":"1999-04-04","cast":["Jeremy Theobald"],"imdb_votes":15133}

{"title":"Slam","runtime_min":100,"director":null}
{"title":"following","release_date":"Apr 04 1999"}
{"title":"X","budget":1}
{"title":
["X"]
{"release_date":"1999-04-04"}
{"title":1776}"#;
    let rows = json_lines(body.as_bytes(), today());
    let seen: Vec<_> =
        rows.iter().map(|r| (r.line, r.facts.as_ref().map_or_else(|e| e.code, |_| "ok"))).collect();
    assert_eq!(
        seen,
        [
            (1, "ok"),
            (3, "ok"),
            (4, "duplicate"),
            (5, "malformed-json"),
            (6, "malformed-json"),
            (7, "malformed-json"),
            (8, "missing-title"),
            (9, "ok")
        ]
    );
    assert_eq!(rows[0].facts.as_ref().unwrap().cast, ["Jeremy Theobald"]);
    assert_eq!(rows[1].facts.as_ref().unwrap().runtime_min, Some(100));
}

#[test]
fn the_whole_real_file_is_understood() {
    let body = include_bytes!("../../../data/movies.csv");
    let rows = csv(body, today()).unwrap();
    assert_eq!(rows.len(), 3201);
    let bad: Vec<_> = rows.iter().filter(|r| r.facts.is_err()).map(|r| (r.line, code(r))).collect();
    assert_eq!(bad, [(3055, "missing-title")]);
    let futures = rows.iter().filter(|r| r.warnings.iter().any(|w| w.contains("future"))).count();
    let mended = rows.iter().filter(|r| r.warnings.iter().any(|w| w.contains("accents"))).count();
    let moved = rows.iter().filter(|r| r.warnings.iter().any(|w| w.contains("article"))).count();
    assert_eq!((futures, mended, moved), (16, 18, 6));
    let newest = rows.iter().filter_map(|r| r.facts.as_ref().ok()?.release_date).max().unwrap();
    assert!(newest <= today(), "{newest}");
}
