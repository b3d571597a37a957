//! Every typed id of the platform. An id is an opaque string with a type prefix, sortable by time; a
//! seat cannot pass for a show.
//!
//! The text is canonical (one spelling an id): lower-case base32hex, which keeps the order of the bytes.
//! - Plain ids are a UUIDv7. Those born in a region end in its tag ([`RegionName::tag`]).
//! - Ids of what lives in a show's journal ([`ReservationId`], …) carry the show's id inside, so that any
//!   gateway routes them with no look-up: 6 bytes of milliseconds, 4 of chance, 16 of the show.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use jiff::Timestamp;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::LazyLock;
use uuid::Uuid;

use crate::RegionName;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
    spec.encoding().expect("32 distinct symbols make an encoding")
});

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected `{0}_…`")]
pub struct BadId(pub &'static str);

fn decode<const N: usize>(prefix: &'static str, text: &str) -> Result<[u8; N], BadId> {
    let body = text.strip_prefix(prefix).and_then(|t| t.strip_prefix('_')).ok_or(BadId(prefix))?;
    if BASE32.decode_len(body.len()) != Ok(N) {
        return Err(BadId(prefix));
    }
    let mut bytes = [0; N];
    // The decoder refuses non-zero trailing bits, so one id has one spelling.
    BASE32.decode_mut(body.as_bytes(), &mut bytes).map_err(|_| BadId(prefix))?;
    Ok(bytes)
}

/// An id's text, made where it is used: ids are in every answer and every journal entry.
struct Text {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl Text {
    /// A prefix, and 26 bytes.
    const LONGEST: usize = 64;

    fn of(prefix: &str, id: &[u8]) -> Self {
        let (begin, end) = (prefix.len() + 1, prefix.len() + 1 + BASE32.encode_len(id.len()));
        let mut bytes = [b'_'; Self::LONGEST];
        bytes[..prefix.len()].copy_from_slice(prefix.as_bytes());
        BASE32.encode_mut(id, &mut bytes[begin..end]);
        Self { bytes, len: end }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("prefixes and base 32 are ASCII")
    }
}

/// Reads an id from a text where that stands.
struct FromText<T>(PhantomData<T>);

impl<T: FromStr<Err = BadId>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Text, serde and OpenAPI forms, shared by all ids.
macro_rules! id_text {
    ($name:ident, $prefix:literal, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Text::of($prefix, &self.to_bytes()).as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(s: &str) -> Result<Self, BadId> {
                decode::<$len>($prefix, s).map(Self::from_bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(Text::of($prefix, &self.to_bytes()).as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_str(FromText(PhantomData))
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-v]+$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

macro_rules! plain_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        id_text!($name, $prefix, 16);
    };
}

macro_rules! global_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        plain_id!($(#[$doc])* $name, $prefix);

        impl $name {
            #[expect(clippy::new_without_default, reason = "a default id would hide that each is new")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }
    };
}

macro_rules! regional_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        plain_id!($(#[$doc])* $name, $prefix);

        impl $name {
            /// A new id, born in `home`.
            pub fn new(home: &RegionName) -> Self {
                let mut bytes = *Uuid::now_v7().as_bytes();
                bytes[14..].copy_from_slice(&home.tag());
                Self::from_bytes(bytes)
            }

            /// The tag of the region in which it was born; see [`RegionName::tag`].
            pub fn home_tag(&self) -> [u8; 2] {
                let bytes = self.to_bytes();
                [bytes[14], bytes[15]]
            }

            pub fn is_home(&self, region: &RegionName) -> bool {
                self.home_tag() == region.tag()
            }
        }
    };
}

macro_rules! show_bound_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            /// 48 bits of milliseconds, 32 bits of chance.
            own: [u8; 10],
            show: ShowId,
        }

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A new id under `show`; `chance` makes ids of one millisecond differ.
            pub fn new(show: ShowId, now: Timestamp, chance: u32) -> Self {
                let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
                let mut own = [0; 10];
                own[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
                own[6..].copy_from_slice(&chance.to_be_bytes());
                Self { own, show }
            }

            /// The show in whose journal it lives.
            pub fn show(&self) -> ShowId {
                self.show
            }

            /// What of it is not the show's: tables that have a column for the show keep only this.
            pub fn own(&self) -> [u8; 10] {
                self.own
            }

            /// The id again, from the show and [`Self::own`]; none where that has another length.
            pub fn of(show: ShowId, own: &[u8]) -> Option<Self> {
                Some(Self { own: own.try_into().ok()?, show })
            }

            fn to_bytes(self) -> [u8; 26] {
                let mut bytes = [0; 26];
                bytes[..10].copy_from_slice(&self.own);
                bytes[10..].copy_from_slice(&self.show.to_bytes());
                bytes
            }

            fn from_bytes(bytes: [u8; 26]) -> Self {
                let (mut own, mut show) = ([0; 10], [0; 16]);
                own.copy_from_slice(&bytes[..10]);
                show.copy_from_slice(&bytes[10..]);
                Self { own, show: ShowId::from_bytes(show) }
            }
        }

        impl ShowBound for $name {
            fn show(&self) -> ShowId {
                self.show
            }

            fn own(&self) -> [u8; 10] {
                self.own
            }

            fn within(show: ShowId, own: [u8; 10]) -> Self {
                Self { own, show }
            }
        }

        id_text!($name, $prefix, 26);
    };
}

/// The ids of what lives in a show's journal, for who keeps many of one show and its id once.
pub trait ShowBound: Copy + fmt::Debug {
    fn show(&self) -> ShowId;

    /// What of it is not the show's.
    fn own(&self) -> [u8; 10];

    /// The id again.
    fn within(show: ShowId, own: [u8; 10]) -> Self;
}

global_id!(/// A person or a machine with an account.
    UserId, "usr");
global_id!(/// One sign-in of one device; ends at logout.
    SessionId, "ses");
global_id!(/// A film of the catalogue.
    MovieId, "mov");
global_id!(/// One line of the audit log.
    AuditId, "aud");
regional_id!(/// A cinema: a house at an address, with halls.
    CinemaId, "cin");
regional_id!(/// A hall of a cinema.
    HallId, "hal");
regional_id!(/// One screening of a film in a hall.
    ShowId, "shw");
show_bound_id!(/// Seats of one show, held or bought together.
    ReservationId, "rsv");
show_bound_id!(/// One attempt to pay for a reservation; the provider's idempotency key.
    PaymentId, "pay");
show_bound_id!(/// Money on its way back; the provider's idempotency key for it.
    RefundId, "ref");
show_bound_id!(/// The right of one person to one seat.
    TicketId, "tkt");

/// The show id inside any id text that carries one (`shw_`, `rsv_`, `pay_`, `ref_`, `tkt_`).
pub fn show_in(text: &str) -> Option<ShowId> {
    match text.split_once('_')?.0 {
        ShowId::PREFIX => text.parse().ok(),
        ReservationId::PREFIX => text.parse().ok().map(|id: ReservationId| id.show()),
        PaymentId::PREFIX => text.parse().ok().map(|id: PaymentId| id.show()),
        RefundId::PREFIX => text.parse().ok().map(|id: RefundId| id.show()),
        TicketId::PREFIX => text.parse().ok().map(|id: TicketId| id.show()),
        _ => None,
    }
}

/// The home region's tag inside any id text that carries one: those of [`show_in`], `cin_` and `hal_`.
pub fn home_tag_in(text: &str) -> Option<[u8; 2]> {
    match text.split_once('_')?.0 {
        CinemaId::PREFIX => text.parse().ok().map(|id: CinemaId| id.home_tag()),
        HallId::PREFIX => text.parse().ok().map(|id: HallId| id.home_tag()),
        _ => show_in(text).map(|id| id.home_tag()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eu() -> RegionName {
        "eu".parse().unwrap()
    }

    #[test]
    fn text_round_trips_and_sorts_by_time() {
        let show = ShowId::new(&eu());
        assert_eq!(show.to_string().parse::<ShowId>().unwrap(), show);
        assert!(show.is_home(&eu()));
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let older = ReservationId::new(show, at(1_700_000_000_000), u32::MAX);
        let newer = ReservationId::new(show, at(1_700_000_000_001), 0);
        assert!(older.to_string() < newer.to_string());
        assert_eq!(newer.to_string().parse::<ReservationId>().unwrap().show(), show);
        assert_eq!(ReservationId::of(show, &newer.own()), Some(newer));
        assert_eq!(ReservationId::of(show, &[0; 9]), None);
    }

    #[test]
    fn one_kind_does_not_pass_for_another() {
        let show = ShowId::new(&eu());
        assert!(show.to_string().parse::<HallId>().is_err());
        assert!(show.to_string().replace("shw", "hal").parse::<HallId>().is_ok());
        for bad in ["", "shw_", "shw", "shw_0", "shw_zzzz", "SHW_00", "shw_é"] {
            assert!(bad.parse::<ShowId>().is_err(), "{bad}");
        }
        assert!(show.to_string().to_uppercase().replace("SHW", "shw").parse::<ShowId>().is_err());
    }

    #[test]
    fn routing_finds_the_show_and_the_home() {
        let show = ShowId::new(&eu());
        let ticket = TicketId::new(show, Timestamp::now(), 7);
        assert_eq!(show_in(&ticket.to_string()), Some(show));
        assert_eq!(home_tag_in(&ticket.to_string()), Some(eu().tag()));
        assert_eq!(home_tag_in(&HallId::new(&eu()).to_string()), Some(eu().tag()));
        assert_eq!(show_in(&UserId::new().to_string()), None);
    }
}
