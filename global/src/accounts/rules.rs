//! What an account's fields must look like. Pure; every fault is named at once.

use std::collections::HashSet;
use std::sync::LazyLock;

use common::FieldError;

pub const MIN_PASSWORD_CHARS: usize = 10;
pub const MAX_PASSWORD_CHARS: usize = 256;

/// Passwords that are tried first by whoever tries passwords.
static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("../../data/common-passwords.txt").lines().collect());

fn fault(field: &str, message: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), message: message.into() }
}

/// The faults of a sign-up's fields.
pub fn new_account(email_text: &str, username_text: &str, name_text: &str, secret: &str) -> Vec<FieldError> {
    let found = [
        email(email_text),
        username(username_text),
        name(name_text),
        password("password", secret, &[username_text, email_text, name_text]),
    ];
    found.into_iter().flatten().collect()
}

/// An address to which mail could be sent; whether it arrives only a mail can tell.
pub fn email(text: &str) -> Option<FieldError> {
    let ok = text.split_once('@').is_some_and(|(local, domain)| {
        (1..=64).contains(&local.len())
            && text.len() <= 254
            && domain.contains('.')
            && domain
                .split('.')
                .all(|label| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-'))
            && local.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"@<>()[]\\,;:\"".contains(c))
    });
    (!ok).then(|| fault("email", "must be an email address, at most 254 bytes long"))
}

/// Never holds an `@`, so that a username and an email address cannot be taken for each other.
pub fn username(text: &str) -> Option<FieldError> {
    let ok = (3..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (!ok).then(|| {
        fault("username", "must be 3 to 32 letters, digits, `.`, `_` or `-`, starting with a letter or digit")
    })
}

pub fn name(text: &str) -> Option<FieldError> {
    let ok = (1..=100).contains(&text.trim().chars().count()) && !text.chars().any(char::is_control);
    (!ok).then(|| fault("name", "must be 1 to 100 characters"))
}

/// E.164, with its `+`: a country's code, which has no leading zero, and the number; at most 15 digits.
pub fn phone(text: &str) -> Option<FieldError> {
    let digits = text.strip_prefix('+').unwrap_or_default();
    let ok = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    (!ok).then(|| fault("phone", "must be a number with its country's code, such as +4930123456"))
}

/// `own`: the username, the email address and the name, which are the first guesses.
pub fn password(field: &str, text: &str, own: &[&str]) -> Option<FieldError> {
    let length = text.chars().count();
    if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&length) {
        return Some(fault(
            field,
            format!("must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters"),
        ));
    }
    let lower = text.to_lowercase();
    let guess = joined(&lower);
    let is_own = own.iter().any(|o| {
        let o = joined(&o.to_lowercase());
        o == guess || o.split('@').next() == Some(guess.as_str())
    });
    if is_own {
        return Some(fault(field, "must not be your own name or email address"));
    }
    let one_character = lower.chars().all(|c| lower.starts_with(c));
    if one_character || COMMON.contains(lower.as_str()) {
        return Some(fault(field, "is among the passwords that everybody tries; choose another"));
    }
    None
}

/// Spaces make no other word of it.
fn joined(lower: &str) -> String {
    lower.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_says_its_country() {
        for good in ["+4930123456", "+12025550143", "+999999999999999"] {
            assert!(phone(good).is_none(), "{good}");
        }
        for bad in [
            "",
            "+",
            "030123456",
            "+0301234567",
            "+49 30 123456",
            "+49301",
            "+1234567890123456",
            "+49٣٠١٢٣٤٥",
            "4930123456",
            "++4930123456",
        ] {
            assert!(phone(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn weak_passwords_are_told_from_good_ones() {
        let weak = |p: &str| {
            password("password", p, &["alexandria", "long.address@example.org", "Bo Li Martins"]).is_some()
        };
        for bad in [
            "",
            "short",
            "ninechars",
            "Password123",
            "QWERTYUIOP",
            "zzzzzzzzzzzz",
            "alexandria",
            "Long.Address@example.org",
            "long.address",
            "Bo Li Martins",
            "bolimartins",
            &"x1".repeat(200),
        ] {
            assert!(weak(bad), "{bad}");
        }
        for good in ["a seat in row F", "éèêëàâäùûü", "Tr0ub4dor&3x", "alexandria1", "alexandria sings"]
        {
            assert!(!weak(good), "{good}");
        }
        assert!(COMMON.len() >= 200 && COMMON.iter().all(|p| p.len() >= MIN_PASSWORD_CHARS));
    }

    proptest::proptest! {
        /// Whatever is typed is judged, never panicked over; what passes is what it claims to be.
        #[test]
        fn any_text_is_judged(a in ".{0,80}", b in ".{0,40}", c in ".{0,120}", d in ".{0,300}") {
            if new_account(&a, &b, &c, &d).is_empty() {
                assert!(a.contains('@') && !b.contains('@') && d.chars().count() >= MIN_PASSWORD_CHARS);
            }
        }

        /// An address that passes brings no second header line or recipient into a mail.
        #[test]
        fn a_good_address_is_one_address(text in "[a-z@.,<>\"\\r\\n :;+-]{1,40}") {
            if email(&text).is_none() {
                assert!(!text.contains(['\r', '\n', ',', '<', '>', ';', ' ']) && text.matches('@').count() == 1);
            }
        }
    }

    #[test]
    fn names_and_addresses_are_checked() {
        for good in ["a@b.example", "first.last+tag@sub.domain.org", "jürgen@bücher.example"] {
            assert_eq!(email(good), None, "{good}");
        }
        for bad in ["", "a", "@b.example", "a@b", "a b@c.example", "a@b..c", "a@@b.example", "a\0@b.example"]
        {
            assert!(email(bad).is_some(), "{bad}");
        }
        for good in ["ann", "4front", "a.b-c_d"] {
            assert_eq!(username(good), None, "{good}");
        }
        for bad in ["", "ab", ".abc", "a@b", "héé", "with space", &"x".repeat(33)] {
            assert!(username(bad).is_some(), "{bad}");
        }
        assert!(name("  ").is_some() && name("a\nb").is_some() && name("Ann").is_none());
        assert_eq!(new_account("", "", "", "").len(), 4);
    }
}
