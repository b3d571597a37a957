//! How text is made comparable for search and sorting: the same in every database, whatever its locale.
//! What is stored as a key was folded by this; a change here needs the keys written anew.

/// Lower case, without accents, blanks made single.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        for c in word.chars().flat_map(char::to_lowercase) {
            match plain(c) {
                Some(letters) => folded.push_str(letters),
                None => folded.push(c),
            }
        }
    }
    folded
}

/// The plain letters of an accented Latin one; empty for a combining accent.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{300}'..='\u{36f}' => "",
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' | 'ĝ' | 'ġ' | 'ģ' => "g",
        'ì'..='ï' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'œ' => "oe",
        'ŕ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ț' => "t",
        'þ' => "th",
        'ù'..='ü' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        '\u{2018}' | '\u{2019}' => "'",
        _ => return None,
    })
}

/// A `LIKE` pattern for "contains this folded text".
pub fn containing(folded: &str) -> String {
    let mut pattern = String::with_capacity(folded.len() + 2);
    pattern.push('%');
    for c in folded.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// Postgres cannot hold NUL, and no name or search has a use for control characters.
pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A search text, folded; none when it is blank, 422 when it cannot be one.
pub fn search_text(q: Option<&str>) -> Result<Option<String>, common::Problem> {
    let Some(q) = q else { return Ok(None) };
    if has_control(q) || q.chars().count() > 200 {
        return Err(common::Problem::invalid(
            "q",
            "is at most 200 characters, none of them control characters",
        ));
    }
    Ok(Some(fold(q)).filter(|folded| !folded.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_case_and_blanks_do_not_matter() {
        assert_eq!(fold("  Le fabuleux   destin d’Amélie\tPOULAIN "), "le fabuleux destin d'amelie poulain");
        assert_eq!(fold("Straße ÆØ Łódź"), "strasse aeo lodz");
        assert_eq!(fold("e\u{301}"), "e");
        assert_eq!(fold("七人の侍"), "七人の侍");
        assert_eq!(fold(" \u{301} "), "");
    }

    #[test]
    fn a_pattern_means_its_text() {
        assert_eq!(containing(r"100%_\"), r"%100\%\_\\%");
    }

    #[test]
    fn search_texts_are_bounded() {
        assert_eq!(search_text(Some("  ")).unwrap(), None);
        assert!(search_text(Some("a\0b")).is_err());
        assert!(search_text(Some(&"x".repeat(201))).is_err());
        assert!(search_text(Some(&"é".repeat(200))).is_ok());
    }
}
