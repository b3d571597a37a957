//! What mails about accounts say (those about orders: `notices/texts.rs`). Plain ASCII in short lines, so that no encoding breaks a link; nothing that a user typed,
//! so that nobody can have us mail his words to a stranger.

use super::outbox::Kind;

pub struct Text {
    pub subject: &'static str,
    pub body: String,
}

/// `token` for kinds that carry one; `link_url` where the customers' pages are, or empty. None: no mail of these.
pub fn compose(kind: Kind, token: &str, link_url: &str) -> Option<Text> {
    let link = |page: &str| match link_url.trim_end_matches('/') {
        "" => String::new(),
        base => format!("Open this page:\n\n{base}/account/{page}?token={token}\n\nor "),
    };
    let (subject, paragraphs) = match kind {
        Kind::Verify => (
            "Confirm your email address",
            format!(
                "Hello,\n\nthis address was given for an account at Marquee.\n\n{}use this code within a day:\n\n\
                 {token}\n\nWas it not you? Then do nothing.",
                link("verify")
            ),
        ),
        Kind::Reset => (
            "Choose a new password",
            format!(
                "Hello,\n\nsomebody asked for a new password for your account at Marquee.\n\n{}use this code \
                 within 30 minutes, once:\n\n{token}\n\nWas it not you? Then do nothing: the old password\n\
                 holds.",
                link("reset")
            ),
        ),
        Kind::PasswordChanged => (
            "Your password was changed",
            "Hello,\n\nthe password of your account at Marquee was changed.\n\nWas it not you? Then ask for a \
             new one at once\n(\"forgot password\"); that ends all sessions."
                .to_owned(),
        ),
        Kind::AddressChanged => (
            "Your email address was changed",
            "Hello,\n\nyour account at Marquee has another email address from now on;\nthis one gets no more \
             mail.\n\nWas it not you? Then write to the cinema."
                .to_owned(),
        ),
        Kind::PhoneCode | Kind::News(_) => return None,
    };
    Some(Text { subject, body: format!("{paragraphs}\n\nMarquee\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_every_encoding_and_carry_their_token() {
        let token = format!("mt_{}", "x".repeat(43));
        for kind in Kind::ALL {
            for base in ["", "https://tickets.example.org/"] {
                let Some(text) = compose(kind, &token, base) else { continue };
                assert!(text.subject.is_ascii() && text.body.is_ascii(), "{kind:?}");
                assert!(text.body.lines().all(|l| l.len() < 200), "{}", text.body);
                assert_eq!(text.body.contains(&token), kind.purpose().is_some(), "{kind:?}");
                let link = kind.purpose().is_some() && !base.is_empty();
                assert_eq!(text.body.contains("https://tickets.example.org/account/"), link, "{kind:?}");
            }
        }
    }
}
