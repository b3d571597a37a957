//! What is said of an order: in a message as short as it goes, so that most are one of 160 letters; in a mail with
//! the way to the tickets.

use common::proto::notices::Notice;

use super::{Kind, News};

const LONGEST_NAME: usize = 40;
const MOST_SEATS: usize = 8;
/// In a mail.
const LONGEST_LINE: usize = 200;
const MOST_SEATS_MAILED: usize = 60;

pub fn message(news: &News<'_>) -> String {
    let told = news.told;
    let (title, cinema) = (short(&told.title, LONGEST_NAME), short(&told.cinema, LONGEST_NAME));
    let (at, reference) = (when(&told.starts_at_local), short(&told.reference, LONGEST_NAME));
    let what = format!("{title}, {at}, {cinema}");
    match news.kind {
        Kind::OrderConfirmed => {
            format!("Marquee: {what}. Paid: {}. Booking {reference}.", seats(told, MOST_SEATS))
        }
        Kind::ShowCanceled => {
            format!("Marquee: canceled by the cinema: {what}. Booking {reference}: your money goes back.")
        }
        Kind::ShowRescheduled => {
            format!("Marquee: new time: {what}{}. Booking {reference}.", was(told, ", not ", ""))
        }
    }
}

/// The body of a mail; `link_url` where the customers' pages are, or empty.
pub fn mail(news: &News<'_>, link_url: &str) -> String {
    let told = news.told;
    let line = |text: &str| short(text, LONGEST_LINE);
    let reference = line(&told.reference);
    let facts = format!(
        "{}\n{}\n{}\nSeats: {}",
        line(&told.title),
        when(&told.starts_at_local),
        line(&told.cinema),
        seats(told, MOST_SEATS_MAILED)
    );
    let tickets = match (link_url.trim_end_matches('/'), news.reservation, news.user()) {
        // Without an account they are with the cinema.
        (_, _, None) => format!("At the cinema, give the reference {reference}."),
        ("", ..) | (_, None, _) => "Your tickets are with your booking, in your account.".to_owned(),
        (base, Some(reservation), Some(_)) => {
            format!("Your tickets are here:\n\n{base}/account/tickets?reservation={reservation}")
        }
    };
    let said = match news.kind {
        Kind::OrderConfirmed => {
            format!("your booking {reference} is paid:\n\n{facts}\n\n{tickets}")
        }
        Kind::ShowCanceled => format!(
            "the cinema has canceled the show of your booking {reference}:\n\n{facts}\n\nWhat you paid goes back the \
             way it came."
        ),
        Kind::ShowRescheduled => format!(
            "the show of your booking {reference} has another time{}:\n\n{facts}\n\nYour seats stay yours, and \
             your tickets are good for the new time.\n\n{tickets}",
            was(told, " (it was ", ")")
        ),
    };
    format!("Hello,\n\n{said}\n\nMarquee\n")
}

/// One line, cut where it is long.
fn short(text: &str, longest: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(longest) {
        None => line,
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
    }
}

/// By the clock on the cinema's wall: `2027-03-01 20:15`.
fn when(local: &str) -> String {
    local.chars().take(16).map(|c| if c == 'T' || c.is_control() { ' ' } else { c }).collect()
}

/// The time before, where it is known.
fn was(told: &Notice, before: &str, after: &str) -> String {
    match told.was_starts_at_local.as_str() {
        "" => String::new(),
        local => format!("{before}{}{after}", when(local)),
    }
}

fn seats(told: &Notice, most: usize) -> String {
    let named: Vec<String> = told.seats.iter().take(most).map(|name| short(name, LONGEST_NAME)).collect();
    let more = told.seats.len().saturating_sub(most);
    if more == 0 { named.join(" ") } else { format!("{} and {more} more", named.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{ReservationId, ShowId, UserId};
    use jiff::Timestamp;

    fn notice(kind: Kind) -> Notice {
        let show = ShowId::new(&"eu".parse().unwrap());
        Notice {
            id: uuid::Uuid::now_v7().to_string(),
            at_micros: Timestamp::now().as_microsecond(),
            user_id: UserId::new().to_string(),
            kind: kind.as_str().into(),
            reservation_id: ReservationId::new(show, Timestamp::now(), 7).to_string(),
            reference: "ABCD2345".into(),
            title: "The Wizard of Oz".into(),
            starts_at_local: "2027-03-01T20:15:00+01:00".into(),
            was_starts_at_local: "2027-02-28T18:00:00+01:00".into(),
            cinema: "Lichtburg".into(),
            seats: vec!["A1".into(), "A2".into()],
            ..Notice::default()
        }
    }

    fn said(kind: Kind) -> String {
        message(&News::read(&notice(kind)).unwrap())
    }

    #[test]
    fn messages_are_short_and_say_what_when_and_where() {
        assert_eq!(
            said(Kind::OrderConfirmed),
            "Marquee: The Wizard of Oz, 2027-03-01 20:15, Lichtburg. Paid: A1 A2. Booking ABCD2345."
        );
        assert_eq!(
            said(Kind::ShowCanceled),
            "Marquee: canceled by the cinema: The Wizard of Oz, 2027-03-01 20:15, Lichtburg. Booking ABCD2345: your \
             money goes back."
        );
        assert_eq!(
            said(Kind::ShowRescheduled),
            "Marquee: new time: The Wizard of Oz, 2027-03-01 20:15, Lichtburg, not 2027-02-28 18:00. Booking ABCD2345."
        );
        let long = Notice {
            title: "\u{e9}\n".repeat(500),
            seats: (0..100).map(|n| format!("A{n}")).collect(),
            ..notice(Kind::OrderConfirmed)
        };
        let text = message(&News::read(&long).unwrap());
        assert!(text.chars().count() < 200 && !text.chars().any(char::is_control), "{text}");
        assert!(text.contains("A7 and 92 more"), "{text}");
    }

    #[test]
    fn mails_say_the_same_and_where_the_tickets_are() {
        for kind in Kind::ALL {
            let told = notice(kind);
            let news = News::read(&told).unwrap();
            let text = mail(&news, "https://tickets.example/");
            for fact in
                ["ABCD2345", "The Wizard of Oz\n", "2027-03-01 20:15\n", "Lichtburg\n", "Seats: A1 A2\n"]
            {
                assert!(text.contains(fact), "{kind:?}: {fact} in {text}");
            }
            assert!(kind.subject().is_ascii() && text.lines().all(|line| line.len() < 900));
            let link =
                format!("\nhttps://tickets.example/account/tickets?reservation={}\n", told.reservation_id);
            assert_eq!(text.contains(&link), kind != Kind::ShowCanceled, "{text}");
            assert_eq!(text.contains("2027-02-28 18:00"), kind == Kind::ShowRescheduled, "{text}");
            assert!(!mail(&news, "").contains("http"));
            let guest = Notice { user_id: String::new(), address: "ada@example.org".into(), ..told.clone() };
            let text = mail(&News::read(&guest).unwrap(), "https://tickets.example");
            assert!(!text.contains("http"), "who has no account cannot sign in: {text}");
            let before = Notice { was_starts_at_local: String::new(), ..told };
            let text = mail(&News::read(&before).unwrap(), "");
            assert!(!text.contains("it was") && !text.contains("()"), "{text}");
        }
        // Nothing that is named can begin a line of its own, or be without an end.
        let odd = Notice {
            title: "A\r\n.\r\nB".into(),
            cinema: "x".repeat(5_000),
            seats: (0..5_000).map(|n| format!("A{n}")).collect(),
            ..notice(Kind::OrderConfirmed)
        };
        let text = mail(&News::read(&odd).unwrap(), "");
        assert!(!text.contains("\n.") && text.lines().all(|line| line.len() < 900), "{text}");
    }
}
