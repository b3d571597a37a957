//! What a film's fields must look like, and which films are the same one. Pure.

use common::FieldError;
use jiff::civil::Date;

/// The first public screening was in December 1895.
const FIRST_YEAR: i16 = 1890;
const LAST_YEAR: i16 = 2150;
/// The longest films ever shown run for days; no cinema programme needs more than one.
pub const MAX_RUNTIME_MIN: i32 = 1440;

/// A film's facts, as they are stored: trimmed, and what is not known is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub title: String,
    pub release_date: Option<Date>,
    pub runtime_min: Option<i32>,
    pub rating: Option<String>,
    pub genre: Option<String>,
    pub director: Option<String>,
    pub distributor: Option<String>,
    pub cast: Vec<String>,
    pub synopsis: Option<String>,
}

/// One space where there were several; none at the ends; nothing is none.
pub fn tidy(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

impl Facts {
    /// Text fields as one would write them; a synopsis keeps its paragraphs.
    pub fn tidied(mut self) -> Self {
        let again = |field: Option<String>| field.as_deref().and_then(tidy);
        self.title = tidy(&self.title).unwrap_or_default();
        self.rating = again(self.rating);
        self.genre = again(self.genre);
        self.director = again(self.director);
        self.distributor = again(self.distributor);
        self.cast = self.cast.iter().filter_map(|name| tidy(name)).collect();
        self.synopsis = self.synopsis.map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
        self
    }

    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut check = |field: &str, ok: bool, message: String| {
            if !ok {
                faults.push(FieldError { field: field.to_owned(), message });
            }
        };
        let line =
            |text: &str, max: usize| text.chars().count() <= max && !text.chars().any(char::is_control);
        check("title", !self.title.is_empty(), "is missing".into());
        check("title", line(&self.title, 300), "must be at most 300 characters".into());
        for (field, value) in [
            ("rating", &self.rating),
            ("genre", &self.genre),
            ("director", &self.director),
            ("distributor", &self.distributor),
        ] {
            let ok = value.as_deref().is_none_or(|text| line(text, 200));
            check(field, ok, "must be at most 200 characters".into());
        }
        let cast_ok = self.cast.len() <= 100 && self.cast.iter().all(|name| line(name, 200));
        check("cast", cast_ok, "must be at most 100 names of at most 200 characters".into());
        let synopsis_ok = self.synopsis.as_deref().is_none_or(|text| {
            text.chars().count() <= 10_000 && !text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c))
        });
        check("synopsis", synopsis_ok, "must be at most 10000 characters".into());
        let runtime_ok = self.runtime_min.is_none_or(|m| (1..=MAX_RUNTIME_MIN).contains(&m));
        check("runtime_min", runtime_ok, format!("must be 1 to {MAX_RUNTIME_MIN} minutes"));
        let date_ok = self.release_date.is_none_or(|d| (FIRST_YEAR..=LAST_YEAR).contains(&d.year()));
        check("release_date", date_ok, format!("must be in the years {FIRST_YEAR} to {LAST_YEAR}"));
        faults
    }

    /// Two rows with the same key are the same film: the title without case, punctuation and the place of
    /// its article, and the release date.
    pub fn natural_key(&self) -> String {
        let date = self.release_date.map(|d| d.to_string()).unwrap_or_default();
        format!("{}|{date}", title_key(&self.title))
    }
}

/// Those that lists put last. The German `die` is left out: in English it ends a title by itself.
const ARTICLES: [&str; 11] = ["the", "a", "an", "das", "der", "le", "la", "les", "el", "los", "il"];

/// `The Fog`, `the fog` and `Fog, The` are one; `Alien` and `Alien³` are two.
fn title_key(title: &str) -> String {
    let lower = article_first(title).to_lowercase().replace('&', " and ").replace(['\'', '’', '.'], "");
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    // A title of signs only is its own key.
    if words.is_empty() { lower } else { words.join(" ") }
}

/// `Charge of the Light Brigade, The` → `The Charge of the Light Brigade`.
pub fn article_first(title: &str) -> String {
    match title.rsplit_once(", ") {
        Some((rest, article)) if ARTICLES.contains(&article.to_lowercase().as_str()) => {
            format!("{article} {rest}")
        }
        _ => title.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film(title: &str, date: Option<&str>) -> Facts {
        Facts { title: title.into(), release_date: date.map(|d| d.parse().unwrap()), ..Facts::default() }
    }

    #[test]
    fn the_same_film_has_the_same_key_and_a_remake_another() {
        let key = |title, date| film(title, date).natural_key();
        assert_eq!(key("The Fog", Some("1980-02-01")), key("FOG, the", Some("1980-02-01")));
        assert_eq!(key("Ben-Hur", None), key("ben hur", None));
        assert_eq!(key("Jack & Jill", None), key("Jack and Jill", None));
        assert_eq!(key("L.I.E.", None), key("LIE", None));
        assert_ne!(key("The Fog", Some("1980-02-01")), key("The Fog", Some("2005-10-14")));
        assert_ne!(key("Alien", None), key("Alien³", None));
        assert_ne!(key("???", None), key("!!!", None));
    }

    #[test]
    fn absurd_facts_are_named() {
        let fields = |facts: Facts| facts.faults().into_iter().map(|f| f.field).collect::<Vec<_>>();
        assert!(fields(film("Following", Some("1999-04-04"))).is_empty());
        assert_eq!(fields(film("", None)), ["title"]);
        assert_eq!(fields(film(&"x".repeat(301), None)), ["title"]);
        assert_eq!(fields(film("a\0b", None)), ["title"]);
        assert_eq!(fields(film("x", Some("1492-10-12"))), ["release_date"]);
        for minutes in [0, -5, 100_000] {
            assert_eq!(fields(Facts { runtime_min: Some(minutes), ..film("x", None) }), ["runtime_min"]);
        }
        let crowd = Facts { cast: vec!["n".into(); 101], ..film("x", None) };
        assert_eq!(fields(crowd), ["cast"]);
    }

    #[test]
    fn blanks_are_tidied() {
        let facts = Facts { genre: Some("  ".into()), ..film("  Halloween:  The Curse ", None) }.tidied();
        assert_eq!((facts.title.as_str(), facts.genre), ("Halloween: The Curse", None));
    }
}
