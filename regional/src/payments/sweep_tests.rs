//! A provider that has money and tells nobody, before a show on a real Postgres.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Money, RefundId, ReservationId};

use super::*;
use crate::host::Answer;
use crate::host::tests::{database, owned_by, process_by, show, wish};
use crate::payments::{Changes, Charge, Provider, ProviderError};
use crate::show::{Asked, Command, Event, Method, Outcome, StartPayment};

#[derive(Clone, Default)]
struct Books(Arc<Mutex<BTreeMap<PaymentId, Booked>>>, Arc<AtomicBool>);

impl Books {
    /// It answers to no refund.
    fn falls_silent(&self, is_silent: bool) {
        self.1.store(is_silent, Ordering::Relaxed);
    }

    fn has(&self, id: PaymentId, amount: i64, refunded: i64) {
        let (status, changed_at) = (ChargeStatus::Succeeded, Timestamp::now());
        let booked = Booked { id: id.to_string(), status, amount, refunded, changed_at };
        self.0.lock().unwrap().insert(id, booked);
    }

    fn refunded(&self, id: PaymentId) -> i64 {
        self.0.lock().unwrap()[&id].refunded
    }
}

#[tonic::async_trait]
impl Provider for Books {
    async fn charge(&self, _: PaymentId, _: Money, _: &str) -> Result<Charge, ProviderError> {
        panic!("nothing is charged for comparing")
    }

    async fn find(&self, id: PaymentId) -> Result<Option<Charge>, ProviderError> {
        let books = self.0.lock().unwrap();
        let charge = |booked: &Booked| Charge { id: booked.id.clone(), status: booked.status, reason: None };
        Ok(books.get(&id).map(charge))
    }

    async fn cancel(&self, _: PaymentId, _: Money) -> Result<Charge, ProviderError> {
        panic!("nothing is canceled for comparing")
    }

    async fn refund(&self, _: RefundId, id: PaymentId, amount: Money) -> Result<(), ProviderError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ProviderError::Unknown("no answer".into()));
        }
        self.0.lock().unwrap().get_mut(&id).unwrap().refunded += amount.amount;
        Ok(())
    }

    /// A page each.
    async fn changed(&self, since: Timestamp, after: Option<String>) -> Result<Changes, ProviderError> {
        let books = self.0.lock().unwrap();
        let at = after.map_or(0, |after| after.parse().unwrap());
        let charges = books.values().skip(at).take(1).filter(|booked| booked.changed_at >= since).cloned();
        let next = (at + 1 < books.len()).then(|| (at + 1).to_string());
        Ok(Changes { charges: charges.collect(), next })
    }
}

async fn ask(app: &App, show: ShowId, command: Command) {
    let asked = Asked { command, by: None, key: None, trace: None, from: None };
    let (_, answer) = app.hosts.ask(show, asked).await.unwrap();
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
}

/// A payment that was begun for a seat, with the amount.
async fn begun(app: &App, show: ShowId, seat: &str) -> (PaymentId, i64) {
    let (_, answer) = app.hosts.ask(show, wish(show, seat, None)).await.unwrap();
    let Answer::Done { group, .. } = answer else { panic!("{answer:?}") };
    let reserved = group.events.iter().find_map(|event| match event {
        Event::Reserved { reservation, .. } => Some(*reservation),
        _ => None,
    });
    let reservation: ReservationId = reserved.unwrap();
    let id = PaymentId::new(show, Timestamp::now(), rand::random());
    let token = Some("tok".to_owned());
    let chance = rand::random();
    let start = StartPayment { id, reservation, method: Method::Card, token, chance };
    ask(app, show, Command::StartPayment(start)).await;
    let host = app.hosts.get(show).await.unwrap();
    (id, host.read(|show| show.payments.get(&id).unwrap().amount))
}

async fn settled(app: &App, id: PaymentId, outcome: Outcome) {
    let show = id.show();
    let refund = RefundId::new(show, Timestamp::now(), rand::random());
    let chance = rand::random();
    ask(app, show, Command::SettlePayment { payment: id, outcome, chance, refund }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_nobody_was_told_of_is_found_and_what_cannot_be_explained_is_counted() {
    let (_server, url) = database(false).await;
    let books = Books::default();
    let app = process_by(&url, Box::new(books.clone())).await;
    let id = show(&app).await;
    // Its webhook was lost for good.
    let (open, price) = begun(&app, id, "A1").await;
    books.has(open, price, 0);
    // It was given up as failed, and a leader that was replaced had charged it after all; somebody else has paid
    // for another seat meanwhile.
    let (late, price) = begun(&app, id, "A2").await;
    settled(&app, late, Outcome::Failed { reason: "provider_timeout".into(), declined: false }).await;
    books.has(late, price, 0);
    let (paid, price) = begun(&app, id, "A3").await;
    settled(&app, paid, Outcome::Completed).await;
    books.has(paid, price, 0);
    // Money was given back at the provider behind our back.
    let (differing, price) = begun(&app, id, "A4").await;
    settled(&app, differing, Outcome::Completed).await;
    books.has(differing, price, 1);
    let stray = PaymentId::new(id, Timestamp::now(), rand::random());
    books.has(stray, price, 0);
    let (elsewhere, now) = (ShowId::new(&crate::testing::region("us")), Timestamp::now());
    owned_by(&app, elsewhere, "us", 1);
    books.has(PaymentId::new(elsewhere, now, rand::random()), price, 0);

    let mut sweep = Sweep::new(app.clone());
    let young = sweep.pass(Timestamp::now() - SignedDuration::from_mins(1)).await.unwrap();
    assert_eq!(young, Found::default(), "requests that may still be under way are left alone");
    let found = sweep.pass(Timestamp::now()).await.unwrap();
    assert_eq!(found, Found { untold: 2, stray: 1, differing: 1 });
    let host = app.hosts.get(id).await.unwrap();
    for payment in [open, late] {
        let (status, unclaimed, refunded) = host
            .read(|show| show.payments.get(&payment).map(|p| (p.status, p.unclaimed, p.refunded)))
            .unwrap();
        assert_ne!(status, PaymentStatus::Failed);
        assert_ne!(status, PaymentStatus::Pending);
        // Either the seat was to be had, or all of it went back.
        assert_eq!(refunded, if unclaimed { price } else { 0 });
        assert_eq!(books.refunded(payment), refunded);
    }
    assert_eq!(books.refunded(stray), price, "it paid for nothing");
    assert_eq!(books.refunded(differing), 1, "an operator decides");
    let returned = |show: &Show| show.strays.iter().copied().collect::<Vec<_>>();
    assert_eq!(host.read(returned), [stray], "and the journal says so");
    let again = sweep.pass(Timestamp::now()).await.unwrap();
    assert_eq!(again, Found { untold: 0, stray: 0, differing: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_of_goes_back_once_and_under_one_key_however_often_it_is_tried() {
    let (_server, url) = database(false).await;
    let books = Books::default();
    let app = process_by(&url, Box::new(books.clone())).await;
    let id = show(&app).await;
    let stray = PaymentId::new(id, Timestamp::now(), rand::random());
    books.has(stray, 700, 0);
    let mut sweep = Sweep::new(app.clone());
    books.falls_silent(true);
    for _ in 0..2 {
        assert_eq!(sweep.pass(Timestamp::now()).await.unwrap().stray, 1);
        assert_eq!(books.refunded(stray), 0);
    }
    let seq = app.hosts.get(id).await.unwrap().read(|show| show.seq);
    books.falls_silent(false);
    for _ in 0..2 {
        sweep.pass(Timestamp::now()).await.unwrap();
        assert_eq!(books.refunded(stray), 700);
    }
    let host = app.hosts.get(id).await.unwrap();
    assert_eq!(host.read(|show| (show.seq, show.strays.len())), (seq, 1), "it is journaled once");
}

#[test]
fn a_refund_that_is_under_way_is_no_difference() {
    let booked = |status, amount, refunded| Booked {
        id: String::new(),
        status,
        amount,
        refunded,
        changed_at: Timestamp::now(),
    };
    let succeeded = |amount, refunded| booked(ChargeStatus::Succeeded, amount, refunded);
    assert_eq!(verdict(None, false, &booked(ChargeStatus::Pending, 5, 0)), Verdict::Fits);
    assert_eq!(verdict(None, false, &booked(ChargeStatus::Canceled, 5, 0)), Verdict::Fits);
    assert_eq!(verdict(None, false, &succeeded(5, 0)), Verdict::Stray);
    assert_eq!(verdict(None, false, &succeeded(5, 5)), Verdict::Fits, "it went back");
    let mut stage = crate::show::tests::Stage::new();
    let (_, id) = stage.buy(common::UserId::new(), &["A3"]);
    let mut payment: Payment = (*stage.show.payments.get(&id).unwrap()).clone();
    let price = payment.amount;
    assert_eq!(verdict(Some(&payment), false, &succeeded(price, 0)), Verdict::Fits);
    assert_eq!(verdict(Some(&payment), false, &succeeded(price, 1)), Verdict::Differs);
    assert_eq!(verdict(Some(&payment), false, &succeeded(price + 1, 0)), Verdict::Differs);
    payment.refunded = 3;
    assert_eq!(verdict(Some(&payment), true, &succeeded(price, 0)), Verdict::Fits);
    assert_eq!(verdict(Some(&payment), false, &succeeded(price, 0)), Verdict::Differs);
    assert_eq!(verdict(Some(&payment), false, &succeeded(price, 3)), Verdict::Fits);
    payment.status = PaymentStatus::Failed;
    assert_eq!(verdict(Some(&payment), false, &succeeded(price, 0)), Verdict::Untold);
}
