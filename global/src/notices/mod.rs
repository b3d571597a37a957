//! What happened to orders, as regions tell it: mailed to whoever has them, and sent as a text message to who gave a
//! number, proved it and wants that.
//!
//! Invariant: of one event one mail and one message at most. They wait in the outbox (`mail/outbox.rs`) under ids made of
//! the event's own, with their text; where they go is looked up when they are sent, but for who has no account.
//! Nothing in them is secret, or typed by a customer.

pub mod server;
mod texts;

use common::proto::notices::Notice;
use common::{ReservationId, UserId};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::accounts::rules;

/// Of an older event nobody is told any more; what was sent is remembered for longer.
const NEWS: SignedDuration = SignedDuration::from_hours(72);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OrderConfirmed,
    ShowCanceled,
    ShowRescheduled,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::OrderConfirmed, Self::ShowCanceled, Self::ShowRescheduled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderConfirmed => "order_confirmed",
            Self::ShowCanceled => "show_canceled",
            Self::ShowRescheduled => "show_rescheduled",
        }
    }

    /// Of its mail.
    pub fn subject(self) -> &'static str {
        match self {
            Self::OrderConfirmed => "Your tickets",
            Self::ShowCanceled => "Your show was canceled",
            Self::ShowRescheduled => "Your show has another time",
        }
    }
}

/// Whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hearer {
    Account(UserId),
    /// Without an account; the address that staff were given.
    Guest(String),
}

/// A notice that is sound.
struct News<'a> {
    id: Uuid,
    kind: Kind,
    hearer: Hearer,
    at: Timestamp,
    reservation: Option<ReservationId>,
    told: &'a Notice,
}

impl<'a> News<'a> {
    /// None: not what it should be.
    fn read(told: &'a Notice) -> Option<Self> {
        let hearer = match (told.user_id.as_str(), told.address.as_str()) {
            ("", address) if rules::email(address).is_none() => Hearer::Guest(address.to_owned()),
            (user, "") => Hearer::Account(user.parse().ok()?),
            _ => return None,
        };
        Some(Self {
            id: told.id.parse().ok()?,
            kind: Kind::ALL.into_iter().find(|kind| kind.as_str() == told.kind)?,
            hearer,
            at: Timestamp::from_microsecond(told.at_micros).ok()?,
            reservation: told.reservation_id.parse().ok(),
            told,
        })
    }

    fn is_new(&self) -> bool {
        Timestamp::now().duration_since(self.at) < NEWS
    }

    fn user(&self) -> Option<UserId> {
        match &self.hearer {
            Hearer::Account(user) => Some(*user),
            Hearer::Guest(_) => None,
        }
    }

    /// The message has the event's id, the mail another one that is made of it: the outbox holds both.
    fn mail_id(&self) -> Uuid {
        Uuid::from_u128(self.id.as_u128() ^ 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            id: Uuid::now_v7().to_string(),
            at_micros: Timestamp::now().as_microsecond(),
            user_id: UserId::new().to_string(),
            kind: "show_rescheduled".into(),
            ..Notice::default()
        }
    }

    #[test]
    fn a_notice_is_for_one_account_or_one_address() {
        let of = |user: &str, address: &str| {
            let notice = Notice { user_id: user.into(), address: address.into(), ..notice() };
            News::read(&notice).map(|news| news.hearer)
        };
        let user = UserId::new();
        assert_eq!(of(&user.to_string(), ""), Some(Hearer::Account(user)));
        assert_eq!(of("", "ada@example.org"), Some(Hearer::Guest("ada@example.org".into())));
        for (user, address) in [
            ("", ""),
            ("", "a@b.example,c@d.example"),
            ("", "a@b.example\r\nBcc: c@d.example"),
            ("usr_", ""),
            (user.to_string().as_str(), "ada@example.org"),
        ] {
            assert_eq!(of(user, address), None, "{user} {address}");
        }
    }

    #[test]
    fn what_is_unknown_or_old_is_no_news() {
        let (good, other) = (notice(), notice());
        let news = News::read(&good).unwrap();
        assert!(news.is_new() && news.mail_id() != news.id);
        assert_ne!(news.mail_id(), News::read(&other).unwrap().mail_id());
        for bad in [
            Notice { kind: "lottery_won".into(), ..notice() },
            Notice { id: "1".into(), ..notice() },
            Notice { at_micros: i64::MAX, ..notice() },
        ] {
            assert!(News::read(&bad).is_none(), "{bad:?}");
        }
        let old = Notice { at_micros: (Timestamp::now() - NEWS).as_microsecond(), ..notice() };
        assert!(!News::read(&old).unwrap().is_new());
    }
}
