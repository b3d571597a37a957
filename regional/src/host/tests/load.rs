//! Customers who reserve, pay and cancel under keys, and a book of what they were told. The book is kept as
//! lines of text, so that a process that is killed has kept it too, up to its last whole line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{PaymentId, RefundId, ReservationId, ShowId, UserId};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::ledger::Ledger;
use crate::app::App;
use crate::host::{Answer, HostError};
use crate::show::{Asked, Cancel, Command, Event, Key, Method, Reserve, StartPayment, Wish};

/// Where customers' lines go.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Seats of the shows that are sold here: ten rows of ten.
pub const ROWS: usize = 10;
const SEATS: usize = 10;

pub fn seat_name(at: usize) -> String {
    format!("{}{}", char::from(b'A' + u8::try_from(at / SEATS).unwrap()), at % SEATS + 1)
}

/// What is asked, as it stands in the book.
fn command(show: ShowId, what: &str) -> Command {
    let now = Timestamp::now();
    let (kind, rest) = what.split_once(' ').unwrap();
    match kind {
        "reserve" => Command::Reserve(Reserve {
            id: ReservationId::new(show, now, rand::random()),
            reference: "R".into(),
            customer: Some(UserId::new()),
            contact: None,
            wish: Wish::Seats(rest.split(',').map(|seat| (seat.to_owned(), None)).collect()),
            origin: None,
            by_staff: false,
        }),
        "pay" => Command::StartPayment(StartPayment {
            id: PaymentId::new(show, now, rand::random()),
            reservation: rest.parse().unwrap(),
            method: Method::Cash,
            token: None,
            chance: rand::random(),
        }),
        "cancel" => Command::Cancel(Cancel {
            reservation: rest.parse().unwrap(),
            seats: None,
            by_staff: true,
            refund: RefundId::new(show, now, rand::random()),
        }),
        other => panic!("{other}"),
    }
}

fn asked(show: ShowId, key: &str, what: &str) -> Asked {
    let id = HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap();
    Asked {
        command: command(show, what),
        by: None,
        key: Some(Key { id, body: [1; 16] }),
        trace: None,
        from: None,
    }
}

/// The outcome as a line's end: what was done, or that it was not, or that nobody knows.
fn outcome(answer: &Result<Answer, HostError>) -> String {
    match answer {
        Ok(Answer::Done { group, .. }) => format!("done {}", serde_json::to_string(&**group).unwrap()),
        Ok(Answer::Already) => "refused".into(),
        Ok(Answer::Refused { .. }) => "refused".into(),
        Err(HostError::OutcomeUnknown) => "unknown".into(),
        Err(
            HostError::Unavailable(_) | HostError::Busy | HostError::Stopped | HostError::NotOwner { .. },
        ) => "not-done".into(),
        Err(other) => format!("broken {other}"),
    }
}

/// One customer after another, until told to stop.
async fn customer(app: App, shows: Vec<ShowId>, seed: u64, tell: Tell, stop: Arc<AtomicBool>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut own: Vec<(ShowId, ReservationId)> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = HEXLOWER.encode(&rng.random::<[u8; 16]>());
        let (show, what) = if own.len() > 3 && rng.random_bool(0.6) {
            let at = rng.random_range(0..own.len());
            let (show, reservation) = if rng.random_bool(0.7) { own.swap_remove(at) } else { own[at] };
            let kind = if rng.random_bool(0.3) { "pay" } else { "cancel" };
            (show, format!("{kind} {reservation}"))
        } else {
            let first = rng.random_range(0..ROWS * SEATS);
            let last = (first + rng.random_range(0..3)).min(ROWS * SEATS - 1);
            let seats: Vec<String> = (first..=last).map(seat_name).collect();
            (*shows.choose(&mut rng).unwrap(), format!("reserve {}", seats.join(",")))
        };
        tell(&format!("? {show} {key} {what}"));
        let answer = app.hosts.ask(show, asked(show, &key, &what)).await;
        // What others left behind, customers of a process that was killed too, is given up in time: a full
        // hall would only refuse.
        if let Ok((host, Answer::Refused { .. })) = &answer {
            let live = host.read(|show| {
                let live = show.reservations.values().filter(|held| !held.seats.is_empty());
                live.map(|held| held.id).collect::<Vec<_>>()
            });
            own.extend(live.choose(&mut rng).map(|reservation| (show, *reservation)));
        }
        let answer = answer.map(|(_, answer)| answer);
        if let Ok(Answer::Done { group, .. }) = &answer
            && let Some(Event::Reserved { reservation, .. }) = group.events.first()
        {
            own.push((show, *reservation));
        }
        tell(&format!("! {key} {}", outcome(&answer)));
        if answer.is_err() {
            // A store that is away answers at once; a breath keeps the book readable.
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..10))).await;
        }
    }
}

/// Starts so many customers; they end soon after `stop`.
pub fn customers(
    app: &App,
    shows: &[ShowId],
    count: u64,
    seed: u64,
    tell: &Tell,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    (0..count)
        .map(|n| {
            let (app, shows, tell, stop) = (app.clone(), shows.to_vec(), tell.clone(), stop.clone());
            tokio::spawn(customer(app, shows, seed.wrapping_add(n.wrapping_mul(0x9e37_79b9)), tell, stop))
        })
        .collect()
}

/// What was asked and what was told.
#[derive(Default)]
pub struct Book {
    /// By key: the show, what was asked, and the last word on it.
    pages: BTreeMap<String, (ShowId, String, Told)>,
    done: Arc<AtomicU64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Done(Value),
    Not,
    /// Or nothing at all.
    Unknown,
    Broken(String),
}

impl Book {
    pub fn line(&mut self, line: &str) {
        let mut parts = line.splitn(4, ' ');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("?"), Some(show), Some(key), Some(what)) => {
                let page = (show.parse().unwrap(), what.to_owned(), Told::Unknown);
                assert!(self.pages.insert(key.to_owned(), page).is_none(), "{key} is used twice");
            }
            (Some("!"), Some(key), Some(word), rest) => {
                let told = match (word, line.splitn(4, ' ').nth(3)) {
                    ("done", Some(group)) => Told::Done(serde_json::from_str(group).unwrap()),
                    ("refused" | "not-done", _) => Told::Not,
                    ("unknown", _) => Told::Unknown,
                    _ => Told::Broken(format!("{word} {rest:?}")),
                };
                if matches!(told, Told::Done(_)) {
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                self.pages.get_mut(key).expect("asked before").2 = told;
            }
            _ => panic!("{line}"),
        }
    }

    /// How many were told that it was done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn unknown(&self) -> usize {
        self.pages.values().filter(|page| page.2 == Told::Unknown).count()
    }

    /// Asks again, under its key, about everything that nobody knows; each must get a word now.
    pub async fn settle(&mut self, app: &App) {
        let unknown: Vec<(String, ShowId, String)> = self
            .pages
            .iter()
            .filter(|(_, page)| page.2 == Told::Unknown)
            .map(|(key, (show, what, _))| (key.clone(), *show, what.clone()))
            .collect();
        for (key, show, what) in unknown {
            let mut last = String::new();
            for _ in 0..100 {
                last =
                    outcome(&app.hosts.ask(show, asked(show, &key, &what)).await.map(|(_, answer)| answer));
                if last.starts_with("done") || last == "refused" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.line(&format!("! {key} {last}"));
            assert_ne!(self.pages[&key].2, Told::Unknown, "{what}: {last}");
        }
    }

    /// What was acknowledged stands there once and as it was told; what was refused does not; what nobody
    /// knows at most once; and nothing stands there that nobody asked for.
    pub fn compare(&self, ledgers: &BTreeMap<ShowId, Ledger>) -> Result<(), String> {
        for (key, (show, what, told)) in &self.pages {
            let stands = ledgers[show].by_key.get(key).map_or(&[][..], Vec::as_slice);
            match (told, stands) {
                (Told::Done(group), [one]) if group == one => {}
                (Told::Not, []) | (Told::Unknown, [] | [_]) => {}
                _ => return Err(format!("{what} under {key}: told {told:?}, but there stands {stands:?}")),
            }
        }
        for ledger in ledgers.values() {
            if let Some(key) = ledger.by_key.keys().find(|key| !self.pages.contains_key(*key)) {
                return Err(format!("nobody asked for {key}"));
            }
        }
        Ok(())
    }
}

/// Every show's journal, each beginning with what it was `before`.
pub async fn ledgers(
    url: &str,
    shows: &[ShowId],
    before: Option<&BTreeMap<ShowId, Ledger>>,
) -> Result<BTreeMap<ShowId, Ledger>, String> {
    let mut ledgers = BTreeMap::new();
    for show in shows {
        let ledger = Ledger::read(url, show.0).await?;
        let was = before.map_or(&[][..], |before| &before[show].hashes);
        if !ledger.hashes.starts_with(was) {
            return Err(format!("{show} had {} entries that are no longer its beginning", was.len()));
        }
        ledgers.insert(*show, ledger);
    }
    Ok(ledgers)
}
