//! The show core's refusals as problems: every code of selling, once.

use common::{FieldError, Problem};

use crate::show::Refusal;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SeatsUnavailable(seats) => {
                Self::conflict("seats-unavailable", "some of the seats are not free").with("seats", seats)
            }
            Refusal::UnknownSeats(seats) => {
                let fault = |seat: &String| FieldError {
                    field: "seats".into(),
                    message: format!("there is no seat {seat}"),
                };
                let mut problem = Self::unprocessable("unknown-seat", "some of the seats do not exist");
                problem.errors = seats.iter().map(fault).collect();
                problem.with("seats", seats)
            }
            Refusal::UnknownCategory { seat, category } => {
                Self::unprocessable("unknown-category", format!("seat {seat} has no price for `{category}`"))
                    .field("seats", format!("`{category}` is not a category of {seat}"))
            }
            Refusal::NotEnoughSeats { free } => {
                Self::conflict("seats-unavailable", "fewer seats of that kind are free").with("free", free)
            }
            Refusal::SingleSeatGap(seats) => Self::conflict(
                "single-seat-gap",
                "this would leave single seats between taken ones; choose seats beside them",
            )
            .with("seats", seats),
            Refusal::CompanionAlone(seats) => {
                Self::conflict("companion-alone", "a companion seat goes with the accessible seat beside it")
                    .with("seats", seats)
            }
            Refusal::NoSeats => Self::invalid("seats", "name at least one seat"),
            Refusal::DuplicateSeat(seat) => Self::unprocessable("duplicate-seat", "a seat is named twice")
                .field("seats", format!("{seat} is named twice")),
            Refusal::SeatLimit { limit } => {
                Self::conflict("seat-limit", format!("one customer may have {limit} seats of this show"))
                    .with("limit", limit)
            }
            Refusal::AddressLimit { limit } => Self::conflict(
                "address-limit",
                format!("the customers at one address together may have {limit} seats of this show"),
            )
            .with("limit", limit),
            Refusal::HoldLimit { until } => Self::conflict(
                "hold-limit",
                "seats were held again and again without paying; others have their turn first",
            )
            .with("until", until),
            Refusal::NotOnSale(why) => Self::conflict("not-on-sale", why),
            Refusal::UnknownReservation => Self::not_found("reservation"),
            Refusal::UnknownPayment => Self::not_found("payment"),
            Refusal::UnknownTicket => not_a_ticket(),
            Refusal::ReservationExpired => {
                Self::conflict("reservation-expired", "the time to pay is over; the seats are free again")
            }
            Refusal::WrongState(why) => Self::conflict("wrong-state", why),
            Refusal::PaymentUnderWay(payment) => {
                Self::conflict("payment-under-way", "a payment of this reservation is under way")
                    .with("payment_id", payment)
            }
            Refusal::RefundWindowClosed => {
                Self::conflict("refund-window-closed", "it is too late to cancel for money back")
            }
            Refusal::RefundTooLarge { remainder } => {
                Self::conflict("refund-exceeds-payment", "there is less left of the payment than that")
                    .with("remainder", remainder)
            }
            Refusal::AlreadyAdmitted { at, by } => {
                Self::conflict("already-admitted", "somebody came in with this ticket")
                    .with("admitted_at", at)
                    .with("admitted_by", by)
            }
            Refusal::TicketCanceled => Self::conflict("canceled", "this ticket was canceled"),
            Refusal::TicketRefunded => Self::conflict("refunded", "this ticket was refunded"),
            Refusal::NonceReused => {
                Self::conflict("nonce-reused", "this nonce belongs to another ticket's scan")
            }
            Refusal::KeyReused => Self::unprocessable(
                "idempotency-key-reused",
                "this idempotency key was used for another request",
            ),
        }
    }
}

pub fn not_a_ticket() -> Problem {
    Problem::unprocessable("not-a-ticket", "this is not a ticket of ours")
        .field("ticket", "its signature does not hold, or no such ticket was issued")
}
