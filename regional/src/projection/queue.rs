//! What waits to be folded in: for each show that moved on, which of its parts its new entries touched. The
//! hosts fill it as they commit, so that the projector need not read the journal again.
//!
//! Invariant: what stands here of a show and its committed state move together, under the state's lock: who
//! takes the one while reading the other sees exactly the entries that are folded in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PaymentId, RefundId, ReservationId, ShowId, TicketId};
use tokio::sync::{Notify, watch};

use crate::audit::{self, Audited};
use crate::show::{Event, Group};

/// Beyond this a show is written anew instead of remembering more of it.
const MOST_TOUCHED: usize = 20_000;

/// Tells the projector that a show has moved on.
#[derive(Clone)]
pub struct Nudge(Arc<Shared>);

struct Shared {
    news: bool,
    queue: Mutex<HashMap<ShowId, Pending>>,
    wake: Notify,
    /// Somebody waits for what is here; it ends the pause between two passes.
    hurry: Notify,
    /// Whether a pass must do without a pause before it.
    awaited: AtomicBool,
    /// Passes over the queue: (started, finished).
    passes: watch::Sender<(u64, u64)>,
}

/// What is to be folded in of one show.
pub(super) struct Pending {
    /// What the entries (after, upto] touched; none where that is not known, and all of the show is new.
    pub span: Option<Span>,
    /// Since when it waits.
    pub since: Instant,
}

pub(super) struct Span {
    pub after: u64,
    pub upto: u64,
    pub touched: Touched,
    /// What the audit log may be told of them.
    pub audited: Vec<Audited>,
}

/// What some entries touched.
#[derive(Default)]
pub(super) struct Touched {
    /// The show's own facts: its times, its status.
    pub facts: bool,
    /// Each with whether it began in these entries, so that before them there was no row of it.
    pub reservations: BTreeMap<ReservationId, bool>,
    pub payments: BTreeMap<PaymentId, bool>,
    pub refunds: BTreeSet<RefundId>,
    pub tickets: BTreeSet<TicketId>,
}

impl Default for Nudge {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Nudge {
    /// `news`: customers are told of what happens.
    pub fn new(news: bool) -> Self {
        Self(Arc::new(Shared {
            news,
            queue: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            awaited: AtomicBool::new(false),
            passes: watch::Sender::new((0, 0)),
        }))
    }

    pub(super) fn news(&self) -> bool {
        self.0.news
    }

    /// A show is to be looked at, whatever changed in it.
    pub fn nudge(&self, show: ShowId) {
        self.put(show, Pending { span: None, since: Instant::now() });
    }

    /// Entry `seq` of a show is committed. Called under the lock of its committed state.
    pub fn committed<'a>(&self, show: ShowId, seq: u64, groups: impl IntoIterator<Item = &'a Group> + Clone) {
        let mut touched = Touched::default();
        groups.clone().into_iter().for_each(|group| touched.add(group));
        let audited = audit::worth_telling(seq, groups, self.0.news).collect();
        let span = Span { after: seq - 1, upto: seq, touched, audited };
        self.put(show, Pending { span: Some(span), since: Instant::now() });
    }

    /// Waits until all that was committed before is folded in, so that a list shows what its reader has just
    /// done; at most half a second, after which the list is merely a little old.
    pub async fn caught_up(&self) {
        let mut passes = self.0.passes.subscribe();
        let (started, finished) = *passes.borrow();
        let target = if self.queue().is_empty() { started } else { started + 1 };
        if finished < target {
            self.0.awaited.store(true, Ordering::Relaxed);
            self.0.hurry.notify_one();
            let folded = passes.wait_for(|(_, finished)| *finished >= target);
            // Late or stopped: the reader gets what there is.
            let _ = tokio::time::timeout(Duration::from_millis(500), folded).await;
        }
    }

    /// Whether anything waits to be folded in or is being so.
    pub fn is_behind(&self) -> bool {
        let (started, finished) = *self.0.passes.borrow();
        !self.queue().is_empty() || finished < started
    }

    /// Entries of `pending` that came meanwhile are newer.
    pub(super) fn put_back(&self, show: ShowId, pending: Pending) {
        let mut queue = self.queue();
        let newer = queue.remove(&show);
        let mut pending = pending;
        if let Some(newer) = newer {
            pending.follow(newer);
        }
        queue.insert(show, pending);
    }

    fn put(&self, show: ShowId, newer: Pending) {
        match self.queue().entry(show) {
            std::collections::hash_map::Entry::Occupied(mut there) => there.get_mut().follow(newer),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(newer);
            }
        }
        self.0.wake.notify_one();
    }

    pub(super) fn shows(&self) -> Vec<ShowId> {
        let mut shows: Vec<ShowId> = self.queue().keys().copied().collect();
        // In one order everywhere, so that two projectors of a region cannot wait for each other in a circle.
        shows.sort_unstable();
        shows
    }

    pub(super) fn take(&self, show: ShowId) -> Option<Pending> {
        self.queue().remove(&show)
    }

    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Pauses, unless somebody waits.
    pub(super) async fn pause(&self, time: Duration) {
        if !self.0.awaited.swap(false, Ordering::Relaxed) {
            let _ = tokio::time::timeout(time, self.0.hurry.notified()).await;
        }
    }

    pub(super) fn pass_started(&self) {
        self.0.passes.send_modify(|(started, _)| *started += 1);
    }

    pub(super) fn pass_finished(&self) {
        self.0.passes.send_modify(|(started, finished)| *finished = *started);
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, HashMap<ShowId, Pending>> {
        self.0.queue.lock().expect("no code panics while holding it")
    }
}

impl Pending {
    /// Takes in what came after it.
    fn follow(&mut self, newer: Self) {
        self.span = match (self.span.take(), newer.span) {
            (Some(mut older), Some(newer)) if older.upto == newer.after => {
                older.upto = newer.upto;
                older.touched.extend(newer.touched);
                older.audited.extend(newer.audited);
                (older.touched.len() + older.audited.len() <= MOST_TOUCHED).then_some(older)
            }
            // Something is missing between them, or was never known.
            _ => None,
        };
    }
}

impl Touched {
    fn len(&self) -> usize {
        self.reservations.len() + self.payments.len() + self.refunds.len() + self.tickets.len()
    }

    fn extend(&mut self, other: Self) {
        self.facts |= other.facts;
        other.reservations.into_iter().for_each(|(id, began)| mark(&mut self.reservations, id, began));
        other.payments.into_iter().for_each(|(id, began)| mark(&mut self.payments, id, began));
        self.refunds.extend(other.refunds);
        self.tickets.extend(other.tickets);
    }

    pub fn add(&mut self, group: &Group) {
        group.events.iter().for_each(|event| self.event(event));
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Led { .. }
            | Event::StrayReturned { .. }
            | Event::Blocked { .. }
            | Event::Unblocked { .. } => {}
            Event::Created(_)
            | Event::Rescheduled { .. }
            | Event::OnSaleChanged { .. }
            | Event::ShowCanceled { .. } => self.facts = true,
            Event::Reserved { reservation, .. } => mark(&mut self.reservations, *reservation, true),
            Event::SeatsChanged { reservation, .. }
            | Event::Lapsed { reservation }
            | Event::Extended { reservation, .. }
            | Event::Retaken { reservation } => mark(&mut self.reservations, *reservation, false),
            Event::PaymentStarted { payment, .. } => mark(&mut self.payments, *payment, true),
            Event::PaymentPending { payment }
            | Event::PaymentCompleted { payment, .. }
            | Event::PaymentFailed { payment, .. } => mark(&mut self.payments, *payment, false),
            Event::PaymentUnclaimed { payment, refund } | Event::RefundStarted { refund, payment, .. } => {
                mark(&mut self.payments, *payment, false);
                self.refunds.insert(*refund);
            }
            Event::Canceled(cancellation) => {
                mark(&mut self.reservations, cancellation.reservation, false);
                if let Some(back) = &cancellation.refund {
                    mark(&mut self.payments, back.payment, false);
                    self.refunds.insert(back.refund);
                }
            }
            Event::RefundCompleted { refund } | Event::RefundFailed { refund, .. } => {
                self.refunds.insert(*refund);
            }
            Event::CheckedIn { ticket, .. } => {
                self.tickets.insert(*ticket);
            }
        }
    }
}

/// Notes that a thing was touched; one that began stays new, whatever happens to it afterwards.
fn mark<K: Ord>(touched: &mut BTreeMap<K, bool>, id: K, began: bool) {
    *touched.entry(id).or_default() |= began;
}
