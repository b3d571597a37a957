//! Whose reservations are whose: by customer, by contact, and by the address they came from, so that the
//! limits of one buyer are checked without a look at all the others.

use common::UserId;

use super::contact::{Contact, ContactDigest};
use super::event::Origin;
use super::index::{Index, hash};
use super::slab::{Slab, Slot, WithId, push};
use super::state::Reservation;

#[derive(Clone, Debug, Default)]
pub(super) struct Buyers {
    /// The last reservation of each; from there it goes back.
    customers: Index<Slot>,
    contacts: Index<Slot>,
    origins: Index<Slot>,
    /// For each reservation the ones before it of the same customer, contact and address.
    before: Vec<[Option<Slot>; 3]>,
}

fn digest(reservation: &Reservation) -> Option<ContactDigest> {
    reservation.contact.as_ref().map(Contact::digest)
}

impl Buyers {
    /// Takes note of the newest reservation.
    pub fn add(&mut self, all: &Slab<Reservation>, slot: Slot) {
        let new = &all[slot];
        let customer = new.customer.and_then(|customer| {
            let same = |other: Slot| all[other].customer == Some(customer);
            self.customers.replace(hash(new.customer), slot, same, |other| hash(all[other].customer))
        });
        let contact = digest(new).and_then(|contact| {
            let same = |other: Slot| digest(&all[other]) == Some(contact);
            self.contacts.replace(hash(Some(contact)), slot, same, |other| hash(digest(&all[other])))
        });
        let origin = new.origin().and_then(|origin| {
            let same = |other: Slot| all[other].origin() == Some(origin);
            self.origins.replace(hash(new.origin()), slot, same, |other| hash(all[other].origin()))
        });
        push(&mut self.before, [customer, contact, origin]);
    }

    pub fn of_customer<'a>(
        &'a self,
        all: &'a Slab<Reservation>,
        customer: UserId,
    ) -> impl Iterator<Item = WithId<'a, Reservation>> {
        let same = |slot: Slot| all[slot].customer == Some(customer);
        self.back_from(all, self.customers.find(hash(Some(customer)), same), 0)
    }

    pub fn of_contact<'a>(
        &'a self,
        all: &'a Slab<Reservation>,
        contact: ContactDigest,
    ) -> impl Iterator<Item = WithId<'a, Reservation>> + use<'a> {
        let same = |slot: Slot| digest(&all[slot]) == Some(contact);
        self.back_from(all, self.contacts.find(hash(Some(contact)), same), 1)
    }

    pub fn of_origin<'a>(
        &'a self,
        all: &'a Slab<Reservation>,
        origin: Origin,
    ) -> impl Iterator<Item = WithId<'a, Reservation>> {
        let same = |slot: Slot| all[slot].origin() == Some(origin);
        self.back_from(all, self.origins.find(hash(Some(origin)), same), 2)
    }

    fn back_from<'a>(
        &'a self,
        all: &'a Slab<Reservation>,
        last: Option<Slot>,
        way: usize,
    ) -> impl Iterator<Item = WithId<'a, Reservation>> + use<'a> {
        std::iter::successors(last, move |slot| self.before[slot.at()][way]).map(move |slot| all.at(slot))
    }
}
