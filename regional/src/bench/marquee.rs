//! Marquee's own design: hosts, journal and projector as a regional process runs them, without HTTP.

use std::sync::Arc;

use common::tls::Tls;
use common::{CinemaId, HallId, MovieId, PaymentId, RegionName, ReservationId, ShowId, UserId};
use jiff::{SignedDuration, Timestamp};
use raft::client::{RegistryClient, RegistryView, ShowRecord};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Booking, Design, Outcome, SEATS_A_BOOKING};
use crate::halls::layout::SeatType;
use crate::host::{Answer, HostError, Hosts, Means};
use crate::journal::{Attempts, Journal, Writer};
use crate::metrics::Metrics;
use crate::projection::{Nudge, Projector};
use crate::relay::Relay;
use crate::replicas::guard::Guard;
use crate::replicas::peers::Peers;
use crate::replicas::recovery::Wanted;
use crate::replicas::{Membership, ReplicaStore, store};
use crate::session::Session;
use crate::show::{
    Asked, Command, Created, Event, Group, Key, Method, Origin, PlanRow, PlanSeat, PriceLine, Reserve,
    StartPayment, Wish,
};

/// Seats in a row of the shows that are sold.
const ROW: u32 = 50;

pub struct Marquee {
    region: RegionName,
    view: RegistryView,
    hosts: Hosts,
    nudge: Nudge,
    shows: Vec<ShowId>,
    /// Names of a show's seats, by their number.
    names: Vec<String>,
    customers: Vec<UserId>,
    stop: CancellationToken,
}

impl Marquee {
    /// Creates `shows` shows of `seats` seats in the (migrated) database and leads them.
    pub async fn start(url: &str, shows: u32, seats: u32) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, 8)?;
        let region: RegionName = "bench".parse()?;
        let stop = CancellationToken::new();
        // Who owns what is told below; no registry is asked.
        let registry = RegistryClient::new(&["http://127.0.0.1:1".to_owned()], &Tls::plain())?;
        let view = registry.watch(stop.clone());
        let (journal, nudge) = (Journal::new(pool.clone()), Nudge::default());
        let metrics = Metrics::new(&prometheus::Registry::new())?;
        let standings = Membership {
            region: region.clone(),
            view: view.clone(),
            registry: registry.clone(),
            guard: Guard::default(),
        };
        let store = ReplicaStore::start(store::Means {
            pool: pool.clone(),
            guard: Guard::default(),
            standings: Arc::new(standings),
            metrics: metrics.replicas.clone(),
            wanted: Wanted::default(),
            commits: Default::default(),
        });
        let hosts = Hosts::new(Means {
            region: region.clone(),
            // Later than any other that led shows here.
            session: Session::fixed(Timestamp::now().as_microsecond().unsigned_abs()),
            journal: journal.clone(),
            writer: Writer::start(pool.clone(), metrics.clone()),
            store,
            peers: Peers::new(
                &region,
                Session::fixed(1),
                Arc::new(|_| Vec::new()),
                Tls::plain(),
                metrics.clone(),
                stop.clone(),
            ),
            registry,
            view: view.clone(),
            projector: nudge.clone(),
            attempts: Attempts::default(),
            metrics: metrics.clone(),
            relay: Relay::none(),
        });
        let projector = Projector { pool, journal, hosts: hosts.clone(), nudge: nudge.clone(), metrics };
        tokio::spawn(projector.run(stop.clone()));
        let (shows_led, names) = (Vec::with_capacity(shows as usize), Vec::new());
        let customers = (0..10_000).map(|_| UserId::new()).collect();
        let mut all = Self { region, view, hosts, nudge, shows: shows_led, names, customers, stop };
        all.lead_more(shows, seats).await?;
        Ok(all)
    }

    /// Creates more shows and leads them too.
    pub async fn lead_more(&mut self, shows: u32, seats: u32) -> anyhow::Result<()> {
        let name = |seat: u32| format!("{}{}", row_name(seat / ROW), seat % ROW + 1);
        self.names.extend((u32::try_from(self.names.len())?..seats).map(name));
        for _ in 0..shows {
            let facts = facts(&self.region, seats);
            let id = facts.show;
            self.owns(id);
            let events = vec![Event::Created(Box::new(facts))];
            self.hosts
                .create(
                    id,
                    Group { at: Timestamp::now(), by: None, key: None, trace: None, from: None, events },
                )
                .await?;
            self.shows.push(id);
        }
        self.nudge.caught_up().await;
        Ok(())
    }

    /// How many shows are led.
    pub fn shows(&self) -> u32 {
        u32::try_from(self.shows.len()).expect("made one by one")
    }

    /// Knows of so many more shows that it owns, of which nobody has asked for any.
    pub fn know_more(&self, shows: u32) {
        (0..shows).for_each(|_| self.owns(ShowId::new(&self.region)));
    }

    /// Sells two seats to a customer: held, paid and ticketed, each under a key.
    pub async fn sell(&self, booking: Booking) -> anyhow::Result<()> {
        let show = self.shows[booking.show as usize];
        let now = Timestamp::now();
        let (id, payment) = (ReservationId::new(show, now, rand::random()), rand::random());
        let reserve = Command::Reserve(Reserve {
            id,
            reference: "K7QM2XPD".into(),
            customer: Some(UserId(Uuid::from_u128(rand::random()))),
            // A customer's address is the account's, which shows do not know.
            contact: None,
            wish: self.wish(booking),
            origin: Some(Origin(rand::random())),
            by_staff: false,
        });
        let pay = Command::StartPayment(StartPayment {
            id: PaymentId::new(show, now, payment),
            reservation: id,
            method: Method::Cash,
            token: None,
            chance: payment,
        });
        for command in [reserve, pay] {
            let key = Some(Key { id: rand::random(), body: rand::random() });
            let by = Some(self.customers[0]);
            let (_, answer) =
                self.hosts.ask(show, Asked { command, by, key, trace: None, from: None }).await?;
            anyhow::ensure!(matches!(answer, Answer::Done { .. }), "{answer:?}");
        }
        Ok(())
    }

    fn wish(&self, booking: Booking) -> Wish {
        let seats = booking.seat..booking.seat + SEATS_A_BOOKING;
        Wish::Seats(seats.map(|seat| (self.names[seat as usize].clone(), None)).collect())
    }

    /// Tells the process that it owns a show which it did not create.
    pub(super) fn owns(&self, show: ShowId) {
        self.view.note(owned(show, &self.region));
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }
}

fn owned(id: ShowId, region: &RegionName) -> ShowRecord {
    let (home, owner, replicas) = (region.clone(), region.clone(), vec![region.clone()]);
    ShowRecord { id, home, owner, epoch: 1, replicas, prior: Vec::new() }
}

impl Drop for Marquee {
    fn drop(&mut self) {
        self.stop.cancel();
        self.hosts.retire();
    }
}

fn row_name(row: u32) -> String {
    let letter = |n: u32| char::from(b'A' + (n % 26) as u8);
    if row < 26 { letter(row).to_string() } else { format!("{}{}", letter(row / 26 - 1), letter(row)) }
}

pub(super) fn facts(region: &RegionName, seats: u32) -> Created {
    let seat = |n: u16| PlanSeat { number: n + 1, kind: SeatType::Standard, x: Some(n.into()) };
    let row = |row: u32| PlanRow {
        row: row_name(row),
        y: Some(row as f32),
        seats: (0..ROW.min(seats - row * ROW) as u16).map(seat).collect(),
    };
    Created {
        show: ShowId::new(region),
        home: region.clone(),
        cinema: CinemaId::new(region),
        cinema_name: "Bench".into(),
        address: "1 Bench Street".into(),
        hall: HallId::new(region),
        hall_name: "1".into(),
        layout_version: 1,
        movie: MovieId::new(),
        title: "A film".into(),
        runtime_min: 100,
        time_zone: "Europe/Berlin".into(),
        currency: "EUR".parse().expect("a currency"),
        starts_at: Timestamp::now() + SignedDuration::from_hours(48),
        on_sale_at: None,
        rows: (0..seats.div_ceil(ROW)).map(row).collect(),
        prices: vec![PriceLine { seat_type: SeatType::Standard, category: "adult".into(), amount: 1_000 }],
        max_seats_per_customer: None,
        single_gap_rule: false,
        refund_tiers: Vec::new(),
        hold_secs: 3_600,
    }
}

#[tonic::async_trait]
impl Design for Marquee {
    async fn settled(&self) {
        while self.nudge.is_behind() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome> {
        let show = self.shows[booking.show as usize];
        let customer = self.customers[rand::random_range(0..self.customers.len())];
        let command = Command::Reserve(Reserve {
            id: ReservationId::new(show, Timestamp::now(), rand::random()),
            reference: "BENCH".into(),
            customer: Some(customer),
            contact: None,
            wish: self.wish(booking),
            origin: None,
            by_staff: false,
        });
        let asked = Asked { command, by: Some(customer), key: None, trace: None, from: None };
        match self.hosts.ask(show, asked).await {
            Ok((_, Answer::Done { .. })) => Ok(Outcome::Booked),
            Ok((_, Answer::Refused { .. } | Answer::Already)) => Ok(Outcome::Taken),
            Err(HostError::Busy) => Ok(Outcome::Busy),
            Err(error) => Err(error.into()),
        }
    }
}
