//! S5: every captured amount is one paid reservation, or went back whole. The provider's books against the
//! journal's; at a moment when nothing is under way any more.

use std::collections::{BTreeMap, BTreeSet};

use common::{PaymentId, RefundId, ShowId};

use super::Books;
use super::seats::Hall;

/// Compares the books with what the journals come to; answers what is wrong.
pub fn compare(books: &Books, halls: &BTreeMap<ShowId, Hall>) -> Vec<(ShowId, String)> {
    let mut wrong = Vec::new();
    let mut seen: BTreeSet<PaymentId> = BTreeSet::new();
    let mut back: BTreeMap<PaymentId, i64> = BTreeMap::new();
    let mut made: BTreeSet<RefundId> = BTreeSet::new();
    for refund in &books.refunds {
        *back.entry(refund.charge).or_default() += refund.amount;
        if !made.insert(refund.id) {
            wrong.push((refund.charge.show(), format!("{} was given back twice", refund.id)));
        }
    }
    let mut captured: BTreeSet<PaymentId> = BTreeSet::new();
    for charge in books.charges.iter().filter(|charge| charge.captured) {
        captured.insert(charge.id);
        let show = charge.id.show();
        if !seen.insert(charge.id) {
            wrong.push((show, format!("{} was captured twice", charge.id)));
        }
        let back = back.get(&charge.id).copied().unwrap_or(0);
        if back > charge.amount {
            wrong.push((show, format!("of {} more went back than came", charge.id)));
        }
        let paid = halls.get(&show).and_then(|hall| hall.payments.get(&charge.id));
        let Some(paid) = paid else {
            wrong.push((show, format!("{} was captured, and no journal knows it", charge.id)));
            continue;
        };
        if paid.amount != charge.amount {
            wrong.push((show, format!("{} was captured over another amount", charge.id)));
        }
        if !paid.came {
            wrong.push((
                show,
                format!("{} was captured, and the journal says {}", charge.id, paid.now.status),
            ));
        } else if paid.reservation.is_none() && back != charge.amount {
            wrong.push((show, format!("{} paid for nothing and did not go back whole", charge.id)));
        } else if paid.now.refunded != back {
            wrong.push((show, format!("{} gave back {back}, not {}", charge.id, paid.now.refunded)));
        }
    }
    for (show, hall) in halls {
        let mut paid_for = BTreeMap::new();
        for (id, paid) in &hall.payments {
            if paid.now.status == "pending" {
                wrong.push((*show, format!("{id} has no outcome yet")));
            }
            if paid.by_provider && paid.came && !captured.contains(id) {
                wrong.push((*show, format!("{id} is said to have come, and did not")));
            }
            let pays = paid.came && paid.now.refunded < paid.amount;
            if let (true, Some(reservation)) = (pays, paid.reservation)
                && let Some(other) = paid_for.insert(reservation, id)
            {
                wrong.push((*show, format!("{reservation} is paid by {other} and by {id}")));
            }
        }
        for (id, refund) in &hall.refunds {
            if refund.open {
                wrong.push((*show, format!("{id} has no outcome yet")));
            }
        }
        let pays_for = hall.pays_for();
        for (id, held) in hall.reservations.iter().filter(|(_, held)| held.now.status == "paid") {
            if !pays_for.contains_key(id) {
                wrong.push((*show, format!("{id} is paid by nothing: {:?}", held.now)));
            }
        }
    }
    wrong
}
