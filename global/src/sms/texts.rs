//! What messages say: as short as it goes, so that most are one message of 160 letters.

use common::proto::notices::Notice;

const LONGEST_NAME: usize = 40;
const MOST_SEATS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OrderConfirmed,
    ShowCanceled,
}

impl Kind {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "order_confirmed" => Some(Self::OrderConfirmed),
            "show_canceled" => Some(Self::ShowCanceled),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderConfirmed => "order_confirmed",
            Self::ShowCanceled => "show_canceled",
        }
    }
}

pub fn compose(kind: Kind, notice: &Notice) -> String {
    let (title, cinema) = (short(&notice.title), short(&notice.cinema));
    let (when, reference) = (when(&notice.starts_at_local), short(&notice.reference));
    let what = format!("{title}, {when}, {cinema}");
    match kind {
        Kind::OrderConfirmed => {
            format!("Marquee: {what}. Paid: {}. Booking {reference}.", seats(&notice.seats))
        }
        Kind::ShowCanceled => {
            format!("Marquee: canceled by the cinema: {what}. Booking {reference}: your money goes back.")
        }
    }
}

/// One line, cut where it is long.
fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(LONGEST_NAME) {
        None => line,
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
    }
}

/// By the clock on the cinema's wall: `2027-03-01 20:15`.
fn when(local: &str) -> String {
    local.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

fn seats(names: &[String]) -> String {
    let named: Vec<String> = names.iter().take(MOST_SEATS).map(|name| short(name)).collect();
    let more = names.len().saturating_sub(MOST_SEATS);
    if more == 0 { named.join(" ") } else { format!("{} and {more} more", named.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_say_what_when_and_where() {
        let notice = Notice {
            reference: "ABCD2345".into(),
            title: "The Wizard of Oz".into(),
            starts_at_local: "2027-03-01T20:15:00+01:00".into(),
            cinema: "Lichtburg".into(),
            seats: vec!["A1".into(), "A2".into()],
            ..Notice::default()
        };
        assert_eq!(
            compose(Kind::OrderConfirmed, &notice),
            "Marquee: The Wizard of Oz, 2027-03-01 20:15, Lichtburg. Paid: A1 A2. Booking ABCD2345."
        );
        assert_eq!(
            compose(Kind::ShowCanceled, &notice),
            "Marquee: canceled by the cinema: The Wizard of Oz, 2027-03-01 20:15, Lichtburg. Booking ABCD2345: your \
             money goes back."
        );
        let long = Notice {
            title: "\u{e9}\n".repeat(500),
            seats: (0..100).map(|n| format!("A{n}")).collect(),
            ..notice
        };
        let text = compose(Kind::OrderConfirmed, &long);
        assert!(text.chars().count() < 200 && !text.chars().any(char::is_control), "{text}");
        assert!(text.contains("A7 and 92 more"), "{text}");
    }
}
