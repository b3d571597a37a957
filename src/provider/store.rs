//! The provider's books in one redb file. Every change is one durable transaction; a change that must be
//! told by webhook writes the message in the same transaction.

use std::path::Path;

use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const CHARGES: TableDefinition<&str, &[u8]> = TableDefinition::new("charges");
/// Creation order → charge id, for listing.
const ORDER: TableDefinition<u64, &str> = TableDefinition::new("order");
/// (when in milliseconds, charge id): each change of a charge.
const CHANGED: TableDefinition<(i64, &str), ()> = TableDefinition::new("changed");
const REFUNDS: TableDefinition<&str, &[u8]> = TableDefinition::new("refunds");
/// (due, charge id) of pending charges that will succeed by themselves.
const LATE: TableDefinition<(i64, &str), ()> = TableDefinition::new("late");
/// Ids whose first call has already been failed on purpose.
const FAILED_ONCE: TableDefinition<&str, ()> = TableDefinition::new("failed_once");
const OUTBOX: TableDefinition<&str, &[u8]> = TableDefinition::new("outbox");

/// How long `tok_late` stays pending.
const LATE_MS: i64 = 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStatus {
    Succeeded,
    Declined,
    Pending,
    Canceled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub id: String,
    pub status: ChargeStatus,
    pub reason: Option<String>,
    pub amount: i64,
    pub currency: String,
    /// Given back so far, in minor units.
    pub refunded: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    pub charge: String,
    pub amount: i64,
    pub status: RefundStatus,
    pub reason: Option<String>,
}

/// A webhook that nobody has accepted yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub id: String,
    pub body: String,
    pub attempts: u32,
    pub next_attempt_ms: i64,
}

/// What a create call comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// New or replayed: the charge as it stands.
    Charge(Charge),
    /// New, and its token says that the answer gets lost.
    AnswerLate(Charge),
    /// Nothing recorded, and the answer gets lost.
    Lost,
    /// Nothing recorded but that it failed once.
    FailedOnce,
    /// The id is taken by a charge over something else.
    Mismatch,
}

pub enum Refunded {
    Refund(Refund),
    NoSuchCharge,
    Mismatch,
}

pub struct Store {
    db: Database,
    /// Rung when a late charge was added.
    pub late_added: Notify,
    /// Rung when the outbox got a message.
    pub outbox_added: Notify,
}

impl Store {
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let db = Database::create(file)?;
        let tx = db.begin_write()?;
        tx.open_table(CHARGES)?;
        tx.open_table(ORDER)?;
        tx.open_table(CHANGED)?;
        tx.open_table(REFUNDS)?;
        tx.open_table(LATE)?;
        tx.open_table(FAILED_ONCE)?;
        tx.open_table(OUTBOX)?;
        tx.commit()?;
        Ok(Self { db, late_added: Notify::new(), outbox_added: Notify::new() })
    }

    pub fn create(&self, id: &str, amount: i64, currency: &str, token: &str) -> anyhow::Result<Created> {
        let tx = self.db.begin_write()?;
        let created = {
            let mut charges = tx.open_table(CHARGES)?;
            if let Some(known) = read::<Charge>(&charges, id)? {
                let same = known.amount == amount && known.currency == currency;
                return Ok(if same { Created::Charge(known) } else { Created::Mismatch });
            }
            let (status, reason) = match token {
                "tok_ok" | "tok_timeout" => (ChargeStatus::Succeeded, None),
                "tok_late" => (ChargeStatus::Pending, None),
                "tok_declined" => (ChargeStatus::Declined, Some("card_declined")),
                "tok_insufficient_funds" => (ChargeStatus::Declined, Some("insufficient_funds")),
                "tok_timeout_lost" => return Ok(Created::Lost),
                "tok_fail_once" => {
                    if tx.open_table(FAILED_ONCE)?.insert(id, ())?.is_none() {
                        drop(charges);
                        tx.commit()?;
                        return Ok(Created::FailedOnce);
                    }
                    (ChargeStatus::Succeeded, None)
                }
                _ => (ChargeStatus::Declined, Some("invalid_token")),
            };
            let charge = Charge {
                id: id.to_owned(),
                status,
                reason: reason.map(str::to_owned),
                amount,
                currency: currency.to_owned(),
                refunded: 0,
            };
            write(&mut charges, id, &charge)?;
            append_order(&mut tx.open_table(ORDER)?, id)?;
            changed(&tx, id)?;
            if status == ChargeStatus::Pending {
                let due_ms = Timestamp::now().as_millisecond() + LATE_MS;
                tx.open_table(LATE)?.insert((due_ms, id), ())?;
            }
            charge
        };
        tx.commit()?;
        if created.status == ChargeStatus::Pending {
            self.late_added.notify_one();
        }
        Ok(if token == "tok_timeout" { Created::AnswerLate(created) } else { Created::Charge(created) })
    }

    pub fn charge(&self, id: &str) -> anyhow::Result<Option<Charge>> {
        read(&self.db.begin_read()?.open_table(CHARGES)?, id)
    }

    /// Charges in the order of their creation, those after `after`; nothing when `after` is unknown.
    pub fn list(&self, after: Option<&str>, limit: usize) -> anyhow::Result<Vec<Charge>> {
        let tx = self.db.begin_read()?;
        let (charges, order) = (tx.open_table(CHARGES)?, tx.open_table(ORDER)?);
        let mut found = Vec::new();
        let mut past = after.is_none();
        for entry in order.iter()? {
            let (_, id) = entry?;
            if past {
                found.extend(read::<Charge>(&charges, id.value())?);
                if found.len() == limit {
                    break;
                }
            } else {
                past = Some(id.value()) == after;
            }
        }
        Ok(found)
    }

    /// What changed at `since_ms` or later, after the change `after` where one is named: when, and the charge as it
    /// is now.
    pub fn changes(
        &self,
        since_ms: i64,
        after: Option<(i64, &str)>,
        limit: usize,
    ) -> anyhow::Result<Vec<(i64, Charge)>> {
        let tx = self.db.begin_read()?;
        let (charges, changed) = (tx.open_table(CHARGES)?, tx.open_table(CHANGED)?);
        let from = after.unwrap_or((since_ms, ""));
        let mut found = Vec::new();
        for entry in changed.range(from..)? {
            let (key, _) = entry?;
            let (at_ms, id) = key.value();
            if after == Some((at_ms, id)) {
                continue;
            }
            found.extend(read::<Charge>(&charges, id)?.map(|charge| (at_ms, charge)));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// Pending becomes canceled; an unknown id is created as canceled, so that a create still under way finds
    /// it so; anything else stays as it is.
    pub fn cancel(&self, id: &str, amount: i64, currency: &str) -> anyhow::Result<Charge> {
        let tx = self.db.begin_write()?;
        let charge = {
            let mut charges = tx.open_table(CHARGES)?;
            let charge = match read::<Charge>(&charges, id)? {
                Some(mut known) => {
                    if known.status == ChargeStatus::Pending {
                        known.status = ChargeStatus::Canceled;
                    }
                    known
                }
                None => {
                    append_order(&mut tx.open_table(ORDER)?, id)?;
                    Charge {
                        id: id.to_owned(),
                        status: ChargeStatus::Canceled,
                        reason: None,
                        amount,
                        currency: currency.to_owned(),
                        refunded: 0,
                    }
                }
            };
            write(&mut charges, id, &charge)?;
            changed(&tx, id)?;
            charge
        };
        tx.commit()?;
        Ok(charge)
    }

    pub fn refund(&self, id: &str, charge_id: &str, amount: i64) -> anyhow::Result<Refunded> {
        let tx = self.db.begin_write()?;
        let refund = {
            let mut refunds = tx.open_table(REFUNDS)?;
            if let Some(known) = read::<Refund>(&refunds, id)? {
                let same = known.charge == charge_id && known.amount == amount;
                return Ok(if same { Refunded::Refund(known) } else { Refunded::Mismatch });
            }
            let mut charges = tx.open_table(CHARGES)?;
            let Some(mut charge) = read::<Charge>(&charges, charge_id)? else {
                return Ok(Refunded::NoSuchCharge);
            };
            let reason = if charge.status != ChargeStatus::Succeeded {
                Some("charge_not_captured")
            } else if amount > charge.amount - charge.refunded {
                Some("amount_too_large")
            } else {
                None
            };
            if reason.is_none() {
                charge.refunded += amount;
                write(&mut charges, charge_id, &charge)?;
                changed(&tx, charge_id)?;
            }
            let refund = Refund {
                id: id.to_owned(),
                charge: charge_id.to_owned(),
                amount,
                status: if reason.is_none() { RefundStatus::Succeeded } else { RefundStatus::Failed },
                reason: reason.map(str::to_owned),
            };
            write(&mut refunds, id, &refund)?;
            refund
        };
        tx.commit()?;
        Ok(Refunded::Refund(refund))
    }

    pub fn refund_by_id(&self, id: &str) -> anyhow::Result<Option<Refund>> {
        read(&self.db.begin_read()?.open_table(REFUNDS)?, id)
    }

    /// Lets every late charge that is due by `now_ms` succeed and writes its webhook. Returns when the next
    /// one is due.
    pub fn settle_late(&self, now_ms: i64) -> anyhow::Result<Option<i64>> {
        let tx = self.db.begin_write()?;
        let mut settled = false;
        let next = {
            let mut late = tx.open_table(LATE)?;
            let mut due = Vec::new();
            let mut next = None;
            for entry in late.iter()? {
                let (key, _) = entry?;
                let (due_ms, id) = key.value();
                if due_ms > now_ms {
                    next = Some(due_ms);
                    break;
                }
                due.push((due_ms, id.to_owned()));
            }
            let mut charges = tx.open_table(CHARGES)?;
            let mut outbox = tx.open_table(OUTBOX)?;
            for (due_ms, id) in due {
                late.remove((due_ms, id.as_str()))?;
                settled = true;
                let Some(mut charge) = read::<Charge>(&charges, &id)? else { continue };
                if charge.status != ChargeStatus::Pending {
                    continue;
                }
                charge.status = ChargeStatus::Succeeded;
                write(&mut charges, &id, &charge)?;
                changed(&tx, &id)?;
                let message = Message {
                    id: format!("msg_{:032x}", rand::random::<u128>()),
                    body: serde_json::json!({ "type": "charge.updated", "charge": charge }).to_string(),
                    attempts: 0,
                    next_attempt_ms: now_ms,
                };
                write(&mut outbox, &message.id, &message)?;
            }
            next
        };
        // Nothing changed: no need to make the disk work.
        if settled {
            tx.commit()?
        } else {
            tx.abort()?
        }
        if settled {
            self.outbox_added.notify_one();
        }
        Ok(next)
    }

    pub fn messages(&self) -> anyhow::Result<Vec<Message>> {
        let outbox = self.db.begin_read()?.open_table(OUTBOX)?;
        let mut messages = Vec::new();
        for entry in outbox.iter()? {
            messages.push(serde_json::from_slice(entry?.1.value())?);
        }
        Ok(messages)
    }

    pub fn delivered(&self, id: &str) -> anyhow::Result<()> {
        let tx = self.db.begin_write()?;
        tx.open_table(OUTBOX)?.remove(id)?;
        Ok(tx.commit()?)
    }

    pub fn postpone(&self, message: &Message) -> anyhow::Result<()> {
        let tx = self.db.begin_write()?;
        write(&mut tx.open_table(OUTBOX)?, &message.id, message)?;
        Ok(tx.commit()?)
    }
}

fn read<T: serde::de::DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
) -> anyhow::Result<Option<T>> {
    Ok(table.get(id)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
}

fn write(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    id: &str,
    value: &impl Serialize,
) -> anyhow::Result<()> {
    table.insert(id, serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

fn changed(tx: &redb::WriteTransaction, id: &str) -> anyhow::Result<()> {
    tx.open_table(CHANGED)?.insert((Timestamp::now().as_millisecond(), id), ())?;
    Ok(())
}

fn append_order(order: &mut redb::Table<'_, u64, &'static str>, id: &str) -> anyhow::Result<()> {
    let next = order.last()?.map_or(0, |(key, _)| key.value() + 1);
    order.insert(next, id)?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
