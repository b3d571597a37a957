//! What can happen to a show, as it stands in the journal.
//!
//! Events are versioned ([`FORMAT`]) and self-describing JSON: fields may be added with a default, never
//! renamed or re-used; a stored sample of every format is folded by a test. One command is one [`Group`], so
//! that no reader ever sees half of it.

use std::borrow::Borrow;

use common::{
    CinemaId, Currency, HallId, MovieId, PaymentId, RefundId, RegionName, ReservationId, ShowId, TicketId,
    UserId,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::contact::Contact;
use super::payment::Method;
use super::state::ReservationStatus;
use crate::halls::layout::SeatType;

/// The format that this program writes. A reader refuses a higher one.
pub const FORMAT: i16 = 1;

/// Everything that one command brought about, with who asked and under which idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The request's trace, so that what follows later links to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The address from which staff asked for what the audit log tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub events: Vec<Event>,
}

/// Stands for the address that a reservation was made from, in one show only: a keyed digest, of which the
/// address cannot be told again. It is for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin(pub u64);

/// A rule that customers are held to and staff are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    SeatLimit,
    AddressLimit,
    HoldLimit,
    SingleSeatGap,
}

/// A used idempotency key: a digest of who and which key, and one of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    #[serde(with = "hex16")]
    pub id: [u8; 16],
    #[serde(with = "hex16")]
    pub body: [u8; 16],
}

/// [`Event`], and the same kinds once more for `reading.rs`: serde writes the kind beside the fields, and reads it
/// in another way.
macro_rules! written_and_read {
    ($(#[$about:meta])* pub enum Event $kinds:tt) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "e", rename_all = "snake_case")]
        pub enum Event $kinds

        #[derive(Deserialize)]
        #[serde(remote = "Event", rename_all = "snake_case")]
        pub(super) enum Kinds $kinds
    };
}

written_and_read! {
    pub enum Event {
        /// A process began to lead under this ballot; everything before it is committed.
        Led {
            epoch: u64,
            session: u64,
            attempt: u64,
        },
        Created(Box<Created>),
        /// Seats taken, for a time.
        Reserved {
            reservation: ReservationId,
            reference: String,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            customer: Option<UserId>,
            /// `contact` in what was written before contacts were sealed.
            #[serde(default, rename = "sealed", alias = "contact", skip_serializing_if = "Option::is_none")]
            contact: Option<Contact>,
            seats: Vec<SeatLine>,
            expires_at: Timestamp,
            /// Since when this buyer has held seats without paying, where that began before this reservation.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            held_since: Option<Timestamp>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            origin: Option<Origin>,
            /// The rules that staff set aside for it; the group says who.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            waived: Vec<Rule>,
        },
        /// Other seats for the same reservation; the deadline stays.
        SeatsChanged {
            reservation: ReservationId,
            seats: Vec<SeatLine>,
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            waived: Vec<Rule>,
        },
        /// The time ran out; the seats are free.
        Lapsed {
            reservation: ReservationId,
        },
        /// The time ran out while nobody led the show: there is a little more, under a new leader.
        Extended {
            reservation: ReservationId,
            expires_at: Timestamp,
        },
        /// Committed before the provider is called.
        PaymentStarted {
            payment: PaymentId,
            reservation: ReservationId,
            method: Method,
            amount: i64,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            token: Option<String>,
        },
        /// The provider has it and will say later.
        PaymentPending {
            payment: PaymentId,
        },
        /// The money is there; the reservation is paid and these are its tickets, in the order of its seats.
        PaymentCompleted {
            payment: PaymentId,
            tickets: Vec<TicketId>,
        },
        /// No money moved and none will under this id.
        PaymentFailed {
            payment: PaymentId,
            reason: String,
            declined: bool,
        },
        /// Money came for seats that are gone or a reservation that is over; it goes back whole.
        PaymentUnclaimed {
            payment: PaymentId,
            refund: RefundId,
        },
        /// The provider has money for a payment that no entry tells of: an owner's entries were lost with a majority.
        /// It goes back.
        StrayReturned {
            payment: PaymentId,
            refund: RefundId,
            amount: i64,
        },
        /// Seats given up, with what goes back.
        Canceled(Cancellation),
        /// Money on its way back; `release`: the seats are free too.
        RefundStarted {
            refund: RefundId,
            payment: PaymentId,
            amount: i64,
            reason: String,
            release: bool,
            /// What of the payment had gone back before.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            was: Option<i64>,
        },
        /// Seats that lapsed before their payment came are held again, since all are free.
        Retaken {
            reservation: ReservationId,
        },
        Blocked {
            seats: Vec<u32>,
            reason: String,
        },
        Unblocked {
            seats: Vec<u32>,
        },
        Rescheduled {
            starts_at: Timestamp,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            was: Option<Timestamp>,
        },
        OnSaleChanged {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            on_sale_at: Option<Timestamp>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            was: Option<Timestamp>,
        },
        /// Nothing is sold any more; what was sold is canceled and refunded by events that follow.
        ShowCanceled {
            reason: String,
        },
        RefundCompleted {
            refund: RefundId,
        },
        RefundFailed {
            refund: RefundId,
            reason: String,
        },
        CheckedIn {
            ticket: TicketId,
            nonce: String,
            at: Timestamp,
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            forced: bool,
        },
    }
}

impl Event {
    /// Whether the audit log tells of it: what staff do to a show, to others' money, or past a rule.
    pub fn is_told_to_audit(&self) -> bool {
        match self {
            Self::Created(_)
            | Self::RefundStarted { .. }
            | Self::Canceled(_)
            | Self::Blocked { .. }
            | Self::Unblocked { .. }
            | Self::Rescheduled { .. }
            | Self::OnSaleChanged { .. }
            | Self::ShowCanceled { .. } => true,
            Self::Reserved { waived, .. } | Self::SeatsChanged { waived, .. } => !waived.is_empty(),
            Self::CheckedIn { forced, .. } => *forced,
            Self::Led { .. }
            | Self::Lapsed { .. }
            | Self::Extended { .. }
            | Self::PaymentStarted { .. }
            | Self::PaymentPending { .. }
            | Self::PaymentCompleted { .. }
            | Self::PaymentFailed { .. }
            | Self::PaymentUnclaimed { .. }
            | Self::StrayReturned { .. }
            | Self::Retaken { .. }
            | Self::RefundCompleted { .. }
            | Self::RefundFailed { .. } => false,
        }
    }
}

/// All that a show needs to be sold, wherever its journal goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    pub show: ShowId,
    pub home: RegionName,
    pub cinema: CinemaId,
    pub cinema_name: String,
    pub address: String,
    pub hall: HallId,
    pub hall_name: String,
    pub layout_version: i32,
    pub movie: MovieId,
    pub title: String,
    pub runtime_min: i32,
    pub time_zone: String,
    pub currency: Currency,
    pub starts_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_sale_at: Option<Timestamp>,
    pub rows: Vec<PlanRow>,
    pub prices: Vec<PriceLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seats_per_customer: Option<u32>,
    #[serde(default)]
    pub single_gap_rule: bool,
    /// What goes back when a customer cancels, by how long before the start; the first that fits counts.
    pub refund_tiers: Vec<RefundTier>,
    pub hold_secs: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRow {
    pub row: String,
    /// In rows from the screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<f32>,
    pub seats: Vec<PlanSeat>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSeat {
    #[serde(rename = "n")]
    pub number: u16,
    #[serde(rename = "t")]
    pub kind: SeatType,
    /// In seats to the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f32>,
}

/// The price of a seat type for a category of visitor (adult, child, …), in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceLine {
    pub seat_type: SeatType,
    pub category: String,
    pub amount: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundTier {
    pub until_secs_before_start: i64,
    pub percent: u8,
}

impl RefundTier {
    pub fn fits(&self, left: SignedDuration) -> bool {
        left.as_secs() >= self.until_secs_before_start
    }
}

/// One seat of a reservation, with its price at the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatLine {
    #[serde(rename = "s")]
    pub seat: u32,
    #[serde(rename = "c")]
    pub category: String,
    #[serde(rename = "a")]
    pub amount: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    pub reservation: ReservationId,
    /// Of its seats, the ones given up.
    pub seats: Vec<u32>,
    /// What goes back, where it was paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<GivenBack>,
    /// Where staff did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Before>,
}

/// A reservation as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub status: ReservationStatus,
    pub seats: Vec<u32>,
}

/// A refund that a cancellation starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    pub refund: RefundId,
    pub payment: PaymentId,
    pub amount: i64,
}

/// A batch of groups as the journal stores it.
pub fn encode<G: Borrow<Group>>(groups: &[G]) -> Vec<u8> {
    let groups: Vec<&Group> = groups.iter().map(Borrow::borrow).collect();
    serde_json::to_vec(&groups).expect("events are plain data")
}

/// Refuses unknown formats and anything that is not whole.
pub fn decode(format: i16, bytes: &[u8]) -> Result<Vec<Group>, String> {
    if !(1..=FORMAT).contains(&format) {
        return Err(format!("format {format} is not known here (up to {FORMAT})"));
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

mod hex16 {
    use std::fmt;

    use data_encoding::HEXLOWER;
    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 16], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&HEXLOWER.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 16], D::Error> {
        d.deserialize_str(Text)
    }

    /// Read where it stands.
    struct Text;

    impl Visitor<'_> for Text {
        type Value = [u8; 16];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("16 bytes in lower-case hex")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<[u8; 16], E> {
            let mut bytes = [0; 16];
            let whole = text.len() == 32 && HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok();
            if whole { Ok(bytes) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
        }
    }
}
