//! What customers think of.

use common::{PaymentId, RefundId, ReservationId, TicketId, UserId};
use regional::show::{
    Cancel, ChangeSeats, ChangeShow, CheckIn, Command, Contact, Method, NewRefund, Origin, Reserve,
    StartPayment, Wish,
};

use crate::client::Known;
use crate::event::Ms;
use crate::process::wall;
use crate::world::World;

#[derive(Clone, Copy)]
enum Want {
    Reserve,
    Best,
    Change,
    Pay,
    Cancel,
    Refund,
    CheckIn,
    Block,
    Read,
    Manage,
    Nonsense,
}

const WANTS: [(u64, Want); 11] = [
    (280, Want::Reserve),
    (60, Want::Best),
    (50, Want::Change),
    (240, Want::Pay),
    (100, Want::Cancel),
    (50, Want::Refund),
    (60, Want::CheckIn),
    (30, Want::Block),
    (80, Want::Read),
    (6, Want::Manage),
    (44, Want::Nonsense),
];

const SEATS: [&str; 16] =
    ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4", "C1", "C2", "C3", "C4", "D1", "D2", "D3", "D4"];

impl World {
    /// What a client wants of a show now. None within: to read.
    pub fn wish(&mut self, show: u8, user: UserId, known: &Known) -> Option<(&'static str, Option<Command>)> {
        let id = self.names.shows[usize::from(show)];
        let now: Ms = self.now;
        let at = wall(now, 0);
        let (chance, refund) = (self.chance32(), RefundId::new(id, at, self.chance32()));
        let by_staff = self.chance.chance(60);
        let seats = |world: &mut Self| -> Vec<(String, Option<String>)> {
            let from = usize::try_from(world.chance.below(16)).unwrap_or(0);
            let count = usize::try_from(world.chance.between(1, 3)).unwrap_or(1);
            let free = world.chance.chance(60).then(|| "free".to_owned());
            SEATS[from..].iter().take(count).map(|seat| ((*seat).to_owned(), free.clone())).collect()
        };
        let reserve = |world: &mut Self, wish: Wish| {
            let id = ReservationId::new(id, at, world.chance32());
            // Guests of one household, too.
            let guest = world.chance.chance(300);
            let contact = guest.then(|| Contact::counted(&format!("{}@example.org", world.chance.below(40))));
            let customer = (!guest).then_some(user);
            let origin = Some(Origin(1));
            Command::Reserve(Reserve { id, reference: "R".into(), customer, contact, wish, origin, by_staff })
        };
        Some(match self.chance.weighed(&WANTS)? {
            Want::Read => ("read", None),
            Want::Reserve => {
                let wish = Wish::Seats(seats(self));
                ("reserve", Some(reserve(self, wish)))
            }
            Want::Best => {
                let count = usize::try_from(self.chance.between(1, 4)).unwrap_or(1);
                ("best", Some(reserve(self, Wish::Best { count, kind: None, category: None })))
            }
            Want::Change => {
                let reservation = *self.chance.one(&known.own)?;
                let seats = seats(self);
                ("change", Some(Command::ChangeSeats(ChangeSeats { reservation, seats, by_staff })))
            }
            Want::Pay => {
                let of = if self.chance.chance(850) { &known.unpaid } else { &known.own };
                let reservation = *self.chance.one(of)?;
                let method = *self.chance.one(&[Method::Card, Method::Card, Method::Online, Method::Cash])?;
                let token = *self.chance.one(&["ok", "ok", "ok", "ok", "late", "declined", "fickle"])?;
                let token = (method != Method::Cash).then(|| token.to_owned());
                let id = PaymentId::new(id, at, self.chance32());
                ("pay", Some(Command::StartPayment(StartPayment { id, reservation, method, token, chance })))
            }
            Want::Cancel => {
                let reservation = *self.chance.one(&known.own)?;
                let seats = self.chance.chance(300).then(|| {
                    let seat = self.chance.one(&SEATS).copied().unwrap_or("A1");
                    vec![seat.to_owned()]
                });
                ("cancel", Some(Command::Cancel(Cancel { reservation, seats, by_staff, refund })))
            }
            Want::Refund => {
                let payment = *self.chance.one(&known.payments)?;
                let amount = self.chance.chance(500).then(|| i64::from(self.chance32() % 2_000));
                let reason = "it was dark".to_owned();
                ("refund", Some(Command::Refund(NewRefund { id: refund, payment, amount, reason })))
            }
            Want::CheckIn => {
                let ticket = *self.chance.one(&known.tickets)?;
                let nonce = format!("n{}", self.chance.below(12));
                let force = self.chance.chance(100);
                ("check in", Some(Command::CheckIn(CheckIn { ticket, nonce, at: None, force })))
            }
            Want::Block => {
                let seats = vec![self.chance.one(&SEATS)?.to_string()];
                if self.chance.chance(600) {
                    ("unblock", Some(Command::Unblock { seats }))
                } else {
                    ("block", Some(Command::Block { seats, reason: "broken".into() }))
                }
            }
            Want::Manage => {
                if self.chance.chance(120) {
                    ("cancel the show", Some(Command::CancelShow { reason: "no power".into() }))
                } else {
                    let starts_at = Some(self.facts[usize::from(show)].starts_at);
                    (
                        "change the show",
                        Some(Command::ChangeShow(ChangeShow { starts_at, on_sale_at: Some(None) })),
                    )
                }
            }
            Want::Nonsense => ("nonsense", Some(self.nonsense(show, known, reserve)?)),
        })
    }

    fn nonsense(
        &mut self,
        show: u8,
        known: &Known,
        reserve: impl Fn(&mut Self, Wish) -> Command,
    ) -> Option<Command> {
        let id = self.names.shows[usize::from(show)];
        let at = wall(0, 0);
        let seat = |name: &str, category: Option<&str>| (name.to_owned(), category.map(str::to_owned));
        let refund = RefundId::new(id, at, self.chance32());
        let nobodys = ReservationId::new(id, at, 7);
        Some(match self.chance.below(11) {
            0 => reserve(self, Wish::Seats(vec![seat("Z9", None)])),
            1 => reserve(self, Wish::Seats(vec![seat("C1", Some("royal"))])),
            2 => reserve(self, Wish::Seats(Vec::new())),
            3 => reserve(self, Wish::Seats(vec![seat("C1", None), seat("C1", None)])),
            4 => reserve(self, Wish::Seats(vec![seat("A2", None)])),
            5 => reserve(self, Wish::Best { count: 17, kind: None, category: None }),
            6 => Command::Cancel(Cancel { reservation: nobodys, seats: None, by_staff: false, refund }),
            7 => {
                let payment = PaymentId::new(id, at, 7);
                Command::Refund(NewRefund { id: refund, payment, amount: None, reason: "x".into() })
            }
            8 => {
                let ticket = TicketId::new(id, at, 7);
                Command::CheckIn(CheckIn { ticket, nonce: "x".into(), at: None, force: false })
            }
            9 => {
                let reservation = *self.chance.one(&known.paid)?;
                let seats = vec![seat("C2", None)];
                Command::ChangeSeats(ChangeSeats { reservation, seats, by_staff: true })
            }
            _ => reserve(self, Wish::Seats(vec![seat("B1", None), seat("B3", None)])),
        })
    }
}
