//! Accents that were lost when bytes of Windows' alphabet were read as those of old Macintoshes: `LÈon`,
//! `DÈj‡ Vu`, `Die F‰lscher`. Pure. Only what cannot have been meant is mended.

/// Bytes 0x80 to 0xFF as Mac OS Roman reads them.
const MAC: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";

/// What the same byte means in Windows-1252, for the bytes that matter here.
fn as_windows(c: char) -> Option<char> {
    let index = MAC.chars().position(|m| m == c)?;
    let byte = u8::try_from(index + 0x80).ok()?;
    match byte {
        0x85 => Some('…'),
        // From 0xA0 on Windows-1252 is Latin-1, which is Unicode.
        0xa0.. => Some(char::from(byte)),
        _ => None,
    }
}

/// The title as it was, when it shows the traces.
pub fn mend(title: &str) -> Option<String> {
    let chars: Vec<char> = title.chars().collect();
    let mended: String = chars
        .iter()
        .enumerate()
        .map(|(i, &c)| {
            let before = i.checked_sub(1).map(|b| chars[b]);
            mend_char(c, before, chars.get(i + 1).copied())
        })
        .collect();
    (mended != title).then_some(mended)
}

fn mend_char(c: char, before: Option<char>, after: Option<char>) -> char {
    if c.is_ascii() {
        return c;
    }
    let Some(meant) = as_windows(c) else { return c };
    let is = |neighbour: Option<char>, test: fn(char) -> bool| neighbour.is_some_and(test);
    let lost = if meant.is_lowercase() {
        // A capital inside a word of small letters, or a sign inside or at the end of a word.
        let capital = c.is_uppercase()
            && is(before, char::is_alphabetic)
            && (is(before, char::is_lowercase) || is(after, char::is_lowercase));
        // The Catalan `l·l` is a word's own.
        let sign = !c.is_alphabetic()
            && is(before, char::is_alphabetic)
            && !(c == '·' && before.is_some_and(|b| b.eq_ignore_ascii_case(&'l')));
        capital || sign
    } else {
        match meant {
            '½' => is(before, |b| b.is_ascii_digit()),
            '…' => is(before, char::is_whitespace) && is(after, char::is_whitespace),
            _ => false,
        }
    };
    if lost { meant } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_character_for_each_byte() {
        assert_eq!(MAC.chars().count(), 128);
        assert_eq!(as_windows('È'), Some('é'));
    }

    #[test]
    fn titles_of_the_real_file_are_mended() {
        for (seen, meant) in [
            ("AstÈrix aux Jeux Olympiques", "Astérix aux Jeux Olympiques"),
            ("De battre mon coeur s'est arrÍtÈ", "De battre mon coeur s'est arrêté"),
            ("Per qualche dollaro in pi˘", "Per qualche dollaro in più"),
            ("I Love You Ö Don't Touch Me!", "I Love You … Don't Touch Me!"),
            ("The Naked Gun 2Ω: The Smell of Fear", "The Naked Gun 2½: The Smell of Fear"),
            ("LÈon", "Léon"),
            ("La mala educaciÛn", "La mala educación"),
            ("CachÈ", "Caché"),
            ("Die F‰lscher", "Die Fälscher"),
            ("DÈj‡ Vu", "Déjà Vu"),
            ("IndigËnes", "Indigènes"),
            ("Obsluhoval jsem anglickÈho kr·le", "Obsluhoval jsem anglického krále"),
            ("La MÙme", "La Môme"),
            ("Joyeux NoÎl", "Joyeux Noël"),
        ] {
            assert_eq!(mend(seen).as_deref(), Some(meant));
        }
    }

    #[test]
    fn what_may_have_been_meant_stays() {
        for title in [
            "Alien³",
            "Ri¢hie Ri¢h",
            "Léon",
            "Élite",
            "À bout de souffle",
            "ÊTRE ET AVOIR",
            "Paral·lel",
            "Über uns das All",
            "千と千尋の神隠し",
            "Crouching Tiger",
        ] {
            assert_eq!(mend(title), None, "{title}");
        }
    }
}
