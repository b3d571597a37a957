//! Customers, staff and integrators: they reserve, change, pay, cancel, refund, check in, block and read;
//! sometimes nonsense; sometimes twice at once; and when nobody can say what became of it, again under the
//! same key.

use std::rc::Rc;

use common::{PaymentId, ReservationId, TicketId, UserId};
use regional::show::{Asked, Command, Key, ReservationStatus, Reserve, Wish};
use uuid::Uuid;

use crate::event::{Event, Inquiry, Said};
use crate::gateway::{Call, DEADLINE, Ended};
use crate::history::{Operation, Told};
use crate::process::wall;
use crate::world::World;

/// How often a client repeats what was not answered.
const TRIES: u32 = 4;

pub struct Client {
    pub user: UserId,
    /// What it waits for: the request, how often it was sent, and the calls that carry it now.
    pending: Option<Pending>,
}

struct Pending {
    show: u8,
    asked: Inquiry,
    what: &'static str,
    tries: u32,
    open: u32,
    unsettled: bool,
}

impl Client {
    pub fn new(no: u32) -> Self {
        Self { user: UserId(Uuid::from_u128(0x5000 + u128::from(no))), pending: None }
    }
}

/// What a customer can know of a show: what was acknowledged of it.
#[derive(Default)]
pub struct Known {
    pub own: Vec<ReservationId>,
    pub unpaid: Vec<ReservationId>,
    pub paid: Vec<ReservationId>,
    pub payments: Vec<PaymentId>,
    pub tickets: Vec<TicketId>,
}

impl World {
    fn known(&self, show: u8, user: UserId) -> Known {
        let mut known = Known::default();
        let Some(state) = &self.truths[usize::from(show)].show else { return known };
        for reservation in state.of_buyer(Some(user), None) {
            known.own.push(reservation.id);
            match reservation.status {
                ReservationStatus::Reserved => known.unpaid.push(reservation.id),
                ReservationStatus::Paid => known.paid.push(reservation.id),
                _ => {}
            }
            known.payments.extend(state.payments_of(&reservation).map(|payment| payment.id));
            known.tickets.extend(reservation.tickets().map(|ticket| ticket.id));
        }
        known
    }

    /// A client goes on: repeats what was not settled, or thinks of something new.
    pub fn client_acts(&mut self, no: u32) {
        let at = usize::try_from(no).unwrap_or(0);
        let Some(pending) = &mut self.clients[at].pending else {
            self.think(no);
            return;
        };
        if pending.open > 0 {
            return;
        }
        if !pending.unsettled || pending.tries >= TRIES {
            self.clients[at].pending = None;
            self.think(no);
            return;
        }
        self.counts.add("client: again under its key");
        self.call(no);
    }

    fn think(&mut self, no: u32) {
        if self.healed_at.is_some() {
            return;
        }
        let at = usize::try_from(no).unwrap_or(0);
        let user = self.clients[at].user;
        let show = u8::try_from(self.chance.below(self.setup.shows.into())).unwrap_or(0);
        let known = self.known(show, user);
        let Some((what, asked)) = self.wish(show, user, &known) else {
            let later = self.soon(self.setup.think.0, self.setup.think.1);
            self.queue.push(later, Event::Client(no));
            return;
        };
        let asked = match asked {
            None => Inquiry::Read,
            Some(command) => Inquiry::Command(Rc::new(self.with_key(user, command))),
        };
        self.clients[at].pending = Some(Pending { show, asked, what, tries: 0, open: 0, unsettled: true });
        self.call(no);
        // A double click, perhaps by way of another gateway.
        if self.chance.chance(40) && what != "read" {
            self.counts.add("client: twice at once");
            self.call(no);
        }
    }

    fn with_key(&mut self, user: UserId, command: Command) -> Asked {
        let (mut id, mut body) = ([0; 16], [0; 16]);
        id[..8].copy_from_slice(&self.chance.word().to_le_bytes());
        id[8..].copy_from_slice(&self.chance.word().to_le_bytes());
        body[..8].copy_from_slice(&self.chance.word().to_le_bytes());
        // Once in a while a key that was used before, for something else.
        let used = self.history.len() as u64;
        if self.chance.chance(8)
            && let Some(before) = self.history.get(usize::try_from(self.chance.below(used)).unwrap_or(0))
            && let Some(key) = &before.key
            && let Some(known) = self.keys.get(key)
        {
            id = *known;
        }
        self.keys.insert(crate::history::hex(&id), id);
        Asked { command, by: Some(user), key: Some(Key { id, body }), trace: None, from: None }
    }

    /// Sends what is pending once more.
    fn call(&mut self, no: u32) {
        let at = usize::try_from(no).unwrap_or(0);
        let now = self.now;
        let gateway = u8::try_from(self.chance.below(self.setup.regions.into())).unwrap_or(0);
        let Some(pending) = &mut self.clients[at].pending else { return };
        pending.tries += 1;
        pending.open += 1;
        let (show, asked, what) = (pending.show, pending.asked.clone(), pending.what);
        let key = match &asked {
            Inquiry::Command(asked) => asked.key.as_ref().map(|key| crate::history::hex(&key.id)),
            Inquiry::Read => None,
        };
        let operation = self.history.len();
        self.history.push(Operation {
            client: no,
            show: self.names.shows[usize::from(show)],
            key,
            what: what.to_owned(),
            start: now,
            end: now,
            outcome: Told::Unknown,
        });
        let id = self.id();
        self.trace.say(now, || format!("client {no}: {what} of show {show} by gateway {gateway}, call {id}"));
        self.calls.insert(id, Call::new(no, operation, gateway, show, asked, now));
        let first = self.soon(0, 5);
        self.queue.push(first, Event::Again(id));
        self.queue.push(now + DEADLINE, Event::CallLost(id));
    }

    /// A call ended. The client may never hear how.
    pub fn client_hears(&mut self, call: &Call, ended: Ended) {
        let now = self.now;
        let unheard = self.chance.chance(10);
        let told = match (unheard, ended) {
            (true, _) => {
                self.counts.add("client: heard nothing");
                Told::Unknown
            }
            (_, Ended::Unknown) => Told::Unknown,
            (_, Ended::NotDone) => Told::NotDone,
            (_, Ended::Said(said)) => match said {
                Said::Done { epoch, seq, index, repeated, .. } => Told::Ok { epoch, seq, index, repeated },
                Said::Already => Told::Already,
                Said::Refused { refusal } => Told::Refused { code: crate::counts::first_word(&refusal) },
                Said::Read { epoch, seq, stamped } => Told::Read { epoch, seq, stamped },
                Said::NotOwner { .. } | Said::Unavailable => Told::NotDone,
                Said::Unknown => Told::Unknown,
            },
        };
        self.counts.add(match &told {
            Told::Ok { repeated: false, .. } => "client: done",
            Told::Ok { repeated: true, .. } => "client: done before",
            Told::Already => "client: already so",
            Told::Refused { .. } => "client: refused",
            Told::NotDone => "client: not done",
            Told::Unknown => "client: unknown",
            Told::Read { stamped: true, .. } => "client: read, stamped",
            Told::Read { stamped: false, .. } => "client: read",
        });
        let is_answer = !matches!(told, Told::NotDone | Told::Unknown);
        if is_answer && self.healed_at.is_some() {
            self.served_at[usize::from(call.show)].get_or_insert(now);
        }
        self.trace.say(now, || format!("client {}: heard {told:?}", call.client));
        if let Some(operation) = self.history.get_mut(call.operation) {
            operation.end = now;
            operation.outcome = told;
        }
        let Some(client) = self.clients.get_mut(usize::try_from(call.client).unwrap_or(0)) else { return };
        if let Some(pending) = &mut client.pending {
            pending.open = pending.open.saturating_sub(1);
            pending.unsettled &= !is_answer;
        }
        let later = self.soon(self.setup.think.0, self.setup.think.1);
        self.queue.push(later, Event::Client(call.client));
    }

    /// After everything healed: somebody asks each show for something, until it answers.
    pub fn probe(&mut self) {
        let Some(healed) = self.healed_at else { return };
        for show in 0..self.setup.shows {
            if self.served_at[usize::from(show)].is_some() {
                continue;
            }
            let gateway = u8::try_from(self.chance.below(self.setup.regions.into())).unwrap_or(0);
            let user = UserId(Uuid::from_u128(0x4000));
            let command = Command::Reserve(Reserve {
                id: ReservationId::new(
                    self.names.shows[usize::from(show)],
                    wall(self.now, 0),
                    self.chance32(),
                ),
                reference: "P".into(),
                customer: Some(user),
                contact: None,
                wish: Wish::Best { count: 1, kind: None, category: None },
                origin: None,
                by_staff: true,
            });
            let asked = Inquiry::Command(Rc::new(self.with_key(user, command)));
            let key = match &asked {
                Inquiry::Command(asked) => asked.key.as_ref().map(|key| crate::history::hex(&key.id)),
                Inquiry::Read => None,
            };
            let operation = self.history.len();
            self.history.push(Operation {
                client: u32::MAX,
                show: self.names.shows[usize::from(show)],
                key,
                what: "probe".into(),
                start: self.now,
                end: self.now,
                outcome: Told::Unknown,
            });
            let id = self.id();
            let now = self.now;
            self.calls.insert(id, Call::new(u32::MAX, operation, gateway, show, asked, now));
            self.queue.push(now, Event::Again(id));
            self.queue.push(now + DEADLINE, Event::CallLost(id));
        }
        if self.now < healed + 60_000 {
            self.queue.push(self.now + 1_000, Event::Probe);
        }
    }
}
