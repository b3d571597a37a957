//! Reads journals on its own: own SQL, own hashing, own reading of the JSON. It shares nothing with the code
//! that wrote them, so that a mistake there cannot hide here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::NoTls;

/// One show's journal, checked from its first entry to its head.
pub struct Ledger {
    /// The hash of each entry, from the first.
    pub hashes: Vec<Vec<u8>>,
    /// What stands under each idempotency key (in hex), as often as it stands there.
    pub by_key: BTreeMap<String, Vec<Value>>,
    /// The sessions that led, in order.
    pub led: Vec<i64>,
}

impl Ledger {
    /// Reads and checks all of it; says what is wrong.
    pub async fn read(url: &str, show: uuid::Uuid) -> Result<Self, String> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        // One snapshot of both tables.
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map_err(|e| e.to_string())?;
        let head = client
            .query_one("SELECT seq, committed, hash FROM show_head WHERE show_id = $1", &[&show])
            .await
            .map_err(|e| e.to_string())?;
        let rows = client
            .query(
                "SELECT seq, epoch, session, attempt, format, hash, events FROM show_journal
                  WHERE show_id = $1 ORDER BY seq",
                &[&show],
            )
            .await
            .map_err(|e| e.to_string())?;
        drop(client);
        let _ = connection.await;
        let mut read = Reader::default();
        for row in &rows {
            let seq: i64 = row.get("seq");
            read.entry(show, seq, row).map_err(|why| format!("{show} at {seq}: {why}"))?;
        }
        let (seq, committed): (i64, i64) = (head.get("seq"), head.get("committed"));
        if (seq, committed) != (read.seq, read.seq) || head.get::<_, Vec<u8>>("hash") != read.hash {
            return Err(format!(
                "{show}: the head says {seq} ({committed}), the entries end at {}",
                read.seq
            ));
        }
        Ok(Self { hashes: read.hashes, by_key: read.by_key, led: read.led })
    }
}

#[derive(Default)]
struct Reader {
    seq: i64,
    hash: Vec<u8>,
    hashes: Vec<Vec<u8>>,
    ballot: (i64, i64, i64),
    ballots: BTreeSet<(i64, i64, i64)>,
    at: String,
    by_key: BTreeMap<String, Vec<Value>>,
    led: Vec<i64>,
    /// Who has each seat, and what each reservation has.
    seats: BTreeMap<u64, String>,
    holds: BTreeMap<String, BTreeSet<u64>>,
    /// What each payment took, and what went back.
    taken: BTreeMap<String, i64>,
    back: BTreeMap<String, i64>,
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Reader {
    fn entry(&mut self, show: uuid::Uuid, seq: i64, row: &tokio_postgres::Row) -> Result<(), String> {
        check(seq == self.seq + 1, || format!("it follows {}", self.seq))?;
        let ballot: (i64, i64, i64) = (row.get("epoch"), row.get("session"), row.get("attempt"));
        let (format, events): (i16, Vec<u8>) = (row.get("format"), row.get("events"));
        let mut hash = Sha256::new();
        hash.update(&self.hash);
        hash.update(show.as_bytes());
        for number in [seq, ballot.0, ballot.1, ballot.2] {
            hash.update(number.to_be_bytes());
        }
        hash.update(format.to_be_bytes());
        hash.update(&events);
        let hash = hash.finalize().to_vec();
        check(hash == row.get::<_, Vec<u8>>("hash"), || "the hash does not chain".into())?;
        let groups: Value = serde_json::from_slice(&events).map_err(|e| e.to_string())?;
        let groups = groups.as_array().ok_or("no list of groups")?;
        // Who begins to lead says so first, and no ballot comes twice.
        if ballot != self.ballot {
            check(groups[0]["events"][0]["e"] == "led", || format!("{ballot:?} began without a word"))?;
            check(self.ballots.insert(ballot), || format!("{ballot:?} led twice"))?;
            self.led.push(ballot.1);
            self.ballot = ballot;
        }
        for group in groups {
            self.group(group)?;
        }
        (self.seq, self.hash) = (seq, hash.clone());
        self.hashes.push(hash);
        Ok(())
    }

    fn group(&mut self, group: &Value) -> Result<(), String> {
        if let Some(key) = group["key"]["id"].as_str() {
            self.by_key.entry(key.to_owned()).or_default().push(group.clone());
        }
        let instant = |text: &str| text.parse::<jiff::Timestamp>().map_err(|e| e.to_string());
        let at = text(&group["at"]);
        if !self.at.is_empty() {
            check(instant(&self.at)? <= instant(&at)?, || "time ran backwards".into())?;
        }
        self.at = at;
        for event in group["events"].as_array().ok_or("no list of events")? {
            self.event(event).map_err(|why| format!("{why}: {event}"))?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Value) -> Result<(), String> {
        let reservation = text(&event["reservation"]);
        let payment = text(&event["payment"]);
        match event["e"].as_str().unwrap_or_default() {
            "led" | "created" => Ok(()),
            "reserved" => {
                check(!self.holds.contains_key(&reservation), || "it was there before".into())?;
                let lines = event["seats"].as_array().ok_or("no seats")?;
                let seats: BTreeSet<u64> = lines.iter().filter_map(|line| line["s"].as_u64()).collect();
                check(seats.len() == lines.len() && !seats.is_empty(), || "a seat twice, or none".into())?;
                for seat in &seats {
                    let other = self.seats.insert(*seat, reservation.clone());
                    check(other.is_none(), || format!("seat {seat} was taken by {other:?}"))?;
                }
                self.holds.insert(reservation, seats);
                Ok(())
            }
            "lapsed" => {
                let seats = self.holds.insert(reservation.clone(), BTreeSet::new()).unwrap_or_default();
                self.free(&reservation, &seats)
            }
            "canceled" => {
                let lines = event["seats"].as_array().ok_or("no seats")?;
                let seats: BTreeSet<u64> = lines.iter().filter_map(Value::as_u64).collect();
                let had = self.holds.get_mut(&reservation).ok_or("no such reservation")?;
                check(!seats.is_empty() && seats.is_subset(had), || "it had them not".into())?;
                had.retain(|seat| !seats.contains(seat));
                self.free(&reservation, &seats)?;
                let Some(refund) = event.get("refund") else { return Ok(()) };
                let payment = text(&refund["payment"]);
                let back = self.back.entry(payment.clone()).or_default();
                *back += refund["amount"].as_i64().ok_or("no amount")?;
                check(Some(&*back) <= self.taken.get(&payment), || "more went back than came".into())
            }
            "payment_started" => {
                check(!self.holds[&reservation].is_empty(), || "it pays for nothing".into())?;
                let amount = event["amount"].as_i64().ok_or("no amount")?;
                check(self.taken.insert(payment, amount).is_none(), || "it began before".into())
            }
            "payment_completed" => {
                let tickets = event["tickets"].as_array().map_or(0, Vec::len);
                check(self.taken.contains_key(&payment) && tickets > 0, || "it never began".into())
            }
            _ => Err("an event that nobody asked for".into()),
        }
    }

    fn free(&mut self, reservation: &str, seats: &BTreeSet<u64>) -> Result<(), String> {
        for seat in seats {
            let owner = self.seats.remove(seat);
            check(owner.as_deref() == Some(reservation), || format!("seat {seat} was {owner:?}'s"))?;
        }
        Ok(())
    }
}
