//! Release dates as people write them, and those that a misread century put into the future. Pure.

use jiff::civil::Date;

use super::parse::Refusal;

/// A release further ahead than this was dated with two digits of the year, and they were misread.
const MAX_YEARS_AHEAD: i16 = 5;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// `is_out`: there is evidence that the film has been shown.
pub fn read_date(
    text: &str,
    today: Date,
    is_out: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Date>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        let shown: String = text.chars().take(40).collect();
        Refusal::new("bad-date", format!("`release_date` is not a date: `{shown}`"))
    };
    let (mut date, two_digits) = match date_parts(text) {
        Some(Parts { year, month: Some((month, day)), two_digits }) => {
            (Date::new(year, month, day).map_err(|_| bad())?, two_digits)
        }
        Some(Parts { year, month: None, two_digits }) => {
            warnings.push(format!("only the year is known; `{text}` was taken as {year}-01-01"));
            (Date::new(year, 1, 1).map_err(|_| bad())?, two_digits)
        }
        None => return Err(bad()),
    };
    let too_far = date.year() > today.year() + MAX_YEARS_AHEAD;
    if too_far || (is_out && date > today) {
        let earlier = Date::new(date.year() - 100, date.month(), date.day()).map_err(|_| bad())?;
        if !two_digits {
            warnings.push(format!("the date {date} lies in the future; it was read as {earlier}"));
        }
        date = earlier;
    }
    Ok(Some(date))
}

struct Parts {
    year: i16,
    month: Option<(i8, i8)>,
    /// The year was written with two digits, so that its century is a guess anyway.
    two_digits: bool,
}

/// `Jun 12 1998`, `June 12, 1998`, `12 Jun 1998`, `12-Jun-98`, `1998-06-12`, `1998`.
fn date_parts(text: &str) -> Option<Parts> {
    if let Ok(date) = text.parse::<Date>()
        && text.len() >= 10
    {
        return Some(Parts { year: date.year(), month: Some((date.month(), date.day())), two_digits: false });
    }
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|w| !w.is_empty()).collect();
    match words.as_slice() {
        [year] if year.len() == 4 => {
            let (year, two_digits) = read_year(year)?;
            Some(Parts { year, month: None, two_digits })
        }
        [a, b, year] => {
            let (month, day) = match (read_month(a), read_month(b)) {
                (Some(month), None) => (month, b.parse().ok()?),
                (None, Some(month)) => (month, a.parse().ok()?),
                _ => return None,
            };
            let (year, two_digits) = read_year(year)?;
            Some(Parts { year, month: Some((month, day)), two_digits })
        }
        _ => None,
    }
}

fn read_month(word: &str) -> Option<i8> {
    let word = word.trim_end_matches('.').to_lowercase();
    let index = MONTHS.iter().position(|m| word.len() >= 3 && word.starts_with(m))?;
    i8::try_from(index + 1).ok()
}

fn read_year(word: &str) -> Option<(i16, bool)> {
    if !word.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match word.len() {
        4 => Some((word.parse().ok()?, false)),
        // In this century first; what is too far ahead goes back one.
        2 => Some((word.parse::<i16>().ok()? + 2000, true)),
        _ => None,
    }
}
