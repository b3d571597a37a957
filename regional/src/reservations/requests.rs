//! The bodies of the calls about reservations, and what they may hold.

use common::{FieldError, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::halls::layout::SeatType;
use crate::show::Wish;

/// At most this many seats in one request.
const MAX_SEATS: usize = 100;
const MAX_NAME: usize = 16;

// Not to be written again: what an idempotency key stands for is digested, and no digest may tell whether an
// address was right.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReservation {
    /// These seats, all of them or none. Either this or `best`.
    #[schema(min_items = 1, max_items = 100)]
    pub seats: Option<Vec<WantedSeat>>,
    /// The best that are free.
    pub best: Option<BestSeats>,
    /// Of the customer, where staff reserve for one. Kept under a key that is destroyed with the account, or, where
    /// staff reserve for somebody without one, some months after the show.
    #[schema(max_length = 254, example = "ada@example.org")]
    pub contact_email: Option<String>,
}

/// The best free seats when the show decides: side by side, near the middle.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BestSeats {
    #[schema(minimum = 1, maximum = 100)]
    pub count: usize,
    /// `standard` where absent (any general kind where the hall has no standard seats). Accessible and
    /// companion seats are given only where they are asked for.
    #[serde(rename = "type")]
    pub kind: Option<SeatType>,
    /// `adult` where absent.
    #[schema(max_length = 32, example = "adult")]
    pub category: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedSeat {
    #[schema(max_length = 16, example = "A1")]
    pub seat: String,
    /// `adult` where absent.
    #[schema(max_length = 32, example = "adult")]
    pub category: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangedSeats {
    /// The seats to have instead; all of them or none.
    #[schema(min_items = 1, max_items = 100)]
    pub seats: Vec<WantedSeat>,
}

#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCancellation {
    /// Names of seats; absent: all.
    #[schema(min_items = 1, max_items = 100)]
    pub seats: Option<Vec<String>>,
}

/// The wish as the core takes it: seats or `best`, not both.
pub fn wish(body: &NewReservation) -> Result<Wish, Problem> {
    match (&body.seats, &body.best) {
        (Some(seats), None) => wanted(seats).map(Wish::Seats),
        (None, Some(best)) => {
            if !(1..=MAX_SEATS).contains(&best.count) {
                return Err(Problem::invalid("best.count", format!("must be between 1 and {MAX_SEATS}")));
            }
            if best.category.as_ref().is_some_and(|c| c.is_empty() || c.len() > 32) {
                return Err(Problem::invalid("best.category", "must be 1 to 32 characters"));
            }
            Ok(Wish::Best { count: best.count, kind: best.kind, category: best.category.clone() })
        }
        (Some(_), Some(_)) => Err(Problem::invalid("best", "name seats or ask for the best, not both")),
        (None, None) => Err(Problem::invalid("seats", "name seats, or ask for the `best`")),
    }
}

/// Seat and category, as the core takes them; too many or absurd ones are refused here.
pub fn wanted(seats: &[WantedSeat]) -> Result<Vec<(String, Option<String>)>, Problem> {
    if seats.is_empty() || seats.len() > MAX_SEATS {
        return Err(Problem::invalid("seats", format!("name 1 to {MAX_SEATS} seats")));
    }
    let mut faults = Vec::new();
    for (at, wanted) in seats.iter().enumerate() {
        if wanted.seat.is_empty() || wanted.seat.len() > MAX_NAME {
            faults.push(FieldError {
                field: format!("seats[{at}].seat"),
                message: format!("must be 1 to {MAX_NAME} characters"),
            });
        }
        if wanted.category.as_ref().is_some_and(|c| c.is_empty() || c.len() > 32) {
            faults.push(FieldError {
                field: format!("seats[{at}].category"),
                message: "must be 1 to 32 characters".into(),
            });
        }
    }
    common::http::all_fields(faults)?;
    Ok(seats.iter().map(|w| (w.seat.clone(), w.category.clone())).collect())
}

/// A plausible address, or 422.
pub fn contact(email: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(email) = email else { return Ok(None) };
    let email = email.trim();
    let plausible = email.len() <= 254
        && email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && host.contains('.') && !host.starts_with('.') && !host.ends_with('.')
        })
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if plausible {
        Ok(Some(email.to_owned()))
    } else {
        Err(Problem::invalid("contact_email", "is not an email address"))
    }
}
