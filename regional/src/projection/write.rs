//! The statements that write the read models: a claim of each show's position, then everything else in bulk.

use std::collections::HashSet;
use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use common::ShowId;
use deadpool_postgres::Transaction;
use futures::SinkExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows::Rows;
use crate::audit::{self, Line};
use crate::notices::{self, Notice};

/// Another projector of the region may have been here meanwhile; then the row is not as expected, and what
/// was made for it is not written.
const MOVE_ON: &str = "
UPDATE projected p SET seq = b.upto, free = b.free, held = b.held, sold = b.sold, blocked = b.blocked,
                       attend_at = b.attend_at
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::int[], $7::int[], $8::timestamptz[])
    AS b (show_id, before, upto, free, held, sold, blocked, attend_at)
 WHERE p.show_id = b.show_id AND p.seq = b.before
RETURNING p.show_id";

const BEGIN: &str = "
INSERT INTO projected (show_id, seq, free, held, sold, blocked, attend_at)
SELECT b.show_id, b.upto, b.free, b.held, b.sold, b.blocked, b.attend_at
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::int[], $7::int[], $8::timestamptz[])
    AS b (show_id, before, upto, free, held, sold, blocked, attend_at)
    ON CONFLICT DO NOTHING RETURNING show_id";

const SHOW: &str = "
INSERT INTO shows (id, cinema_id, hall_id, movie_id, starts_at, ends_at, on_sale_at, status, home, currency, view)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET starts_at = excluded.starts_at, ends_at = excluded.ends_at,
    on_sale_at = excluded.on_sale_at, status = excluded.status, view = excluded.view";

impl Rows {
    /// Writes everything in the caller's transaction; which shows it was written for.
    pub async fn write(&mut self, transaction: &Transaction<'_>) -> anyhow::Result<HashSet<ShowId>> {
        let claimed = self.claim(transaction).await?;
        if claimed.len() < self.positions.len() {
            self.retain(|show| claimed.contains(&show));
        }
        if !self.whole.is_empty() {
            let shows: Vec<Uuid> = self.whole.iter().map(|show| show.0).collect();
            for table in ["reservations", "payments", "refunds", "tickets"] {
                let delete = format!("DELETE FROM {table} WHERE show_id = ANY($1)");
                transaction.execute(&transaction.prepare_cached(&delete).await?, &[&shows]).await?;
            }
        }
        self.write_shows(transaction).await?;
        for table in self.tables() {
            table.write(transaction).await?;
        }
        let told: Vec<Line> = std::mem::take(&mut self.told).into_iter().map(|(_, line)| line).collect();
        audit::put(transaction, &told).await?;
        let news: Vec<Notice> =
            std::mem::take(&mut self.news).into_iter().map(|(_, notice)| notice).collect();
        notices::put(transaction, &news).await?;
        Ok(claimed)
    }

    fn tables(&self) -> [Table; 4] {
        // Of these nothing is there any more.
        let whole: HashSet<ShowId> = self.whole.iter().copied().collect();
        let mut reservations = Table::new(
            "reservations",
            "show_id, own, customer, contact, reference, status, created_at, expires_at, rest",
        );
        for row in &self.reservations {
            reservations.row(row.id.show(), row.id.own(), row.is_new);
            reservations.optional(row.customer.as_ref().map(|customer| &customer.0.as_bytes()[..]));
            reservations.optional(row.contact.as_ref().map(String::as_bytes));
            reservations.bytes(row.reference.as_bytes());
            reservations.name(row.status);
            reservations.time(row.created_at);
            reservations.time(row.expires_at);
            reservations.bytes(row.rest.as_bytes());
        }
        let mut payments = Table::new(
            "payments",
            "show_id, own, reservation, customer, method, status, amount, refunded, reason, created_at, settled_at",
        );
        for row in &self.payments {
            payments.row(row.id.show(), row.id.own(), row.is_new);
            payments.bytes(&row.reservation.own());
            payments.optional(row.customer.as_ref().map(|customer| &customer.0.as_bytes()[..]));
            payments.name(row.method);
            payments.name(row.status);
            payments.bytes(&row.amount.to_be_bytes());
            payments.bytes(&row.refunded.to_be_bytes());
            payments.optional(row.reason.as_ref().map(String::as_bytes));
            payments.time(row.created_at);
            match row.settled_at {
                Some(at) => payments.time(at),
                None => payments.optional(None),
            }
        }
        let mut refunds = Table::new("refunds", "show_id, own, payment, status, amount, created_at");
        for row in &self.refunds {
            refunds.row(row.id.show(), row.id.own(), whole.contains(&row.id.show()));
            refunds.bytes(&row.payment.own());
            refunds.name(row.status);
            refunds.bytes(&row.amount.to_be_bytes());
            refunds.time(row.created_at);
        }
        let mut tickets = Table::new("tickets", "show_id, own, reservation, seat, status");
        for row in &self.tickets {
            tickets.row(row.id.show(), row.id.own(), row.is_new);
            tickets.bytes(&row.reservation.own());
            tickets.bytes(row.seat.as_bytes());
            tickets.name(row.status);
        }
        [reservations, payments, refunds, tickets]
    }

    /// Moves the shows' positions on, those that stand where they are expected.
    async fn claim(&self, transaction: &Transaction<'_>) -> anyhow::Result<HashSet<ShowId>> {
        let mut claimed = HashSet::with_capacity(self.positions.len());
        for (statement, first) in [(MOVE_ON, false), (BEGIN, true)] {
            let of: Vec<_> = self.positions.iter().filter(|p| (p.before == 0) == first).collect();
            if of.is_empty() {
                continue;
            }
            let shows: Vec<Uuid> = of.iter().map(|p| p.show.0).collect();
            let before = of.iter().map(|p| i64::try_from(p.before)).collect::<Result<Vec<i64>, _>>()?;
            let upto = of.iter().map(|p| i64::try_from(p.upto)).collect::<Result<Vec<i64>, _>>()?;
            let [free, held, sold, blocked] =
                [0, 1, 2, 3].map(|n: usize| of.iter().map(|p| p.counts[n]).collect::<Vec<i32>>());
            let attend_at: Vec<_> = of.iter().map(|p| p.attend_at).collect();
            let statement = transaction.prepare_cached(statement).await?;
            let params: [&(dyn ToSql + Sync); 8] =
                [&shows, &before, &upto, &free, &held, &sold, &blocked, &attend_at];
            let rows = transaction.query(&statement, &params).await?;
            claimed.extend(rows.iter().map(|row| ShowId(row.get(0))));
        }
        Ok(claimed)
    }

    async fn write_shows(&self, transaction: &Transaction<'_>) -> anyhow::Result<()> {
        if self.shows.is_empty() {
            return Ok(());
        }
        let statement = transaction.prepare_cached(SHOW).await?;
        for row in &self.shows {
            let show = &row.view;
            let (cinema, hall, movie) = (show.cinema_id.0, show.hall_id.0, show.movie_id.0);
            let params: [&(dyn ToSql + Sync); 11] = [
                &show.id.0,
                &cinema,
                &hall,
                &movie,
                &show.starts_at,
                &row.ends_at,
                &show.on_sale_at,
                &name(show.status),
                &show.region.as_str(),
                &row.currency,
                &row.json,
            ];
            transaction.execute(&statement, &params).await?;
        }
        Ok(())
    }
}

/// How an enum is called in the tables, which is as the API calls it.
fn name(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("plain data");
    value.as_str().expect("a name").to_owned()
}

/// Rows on their way into a table, in the binary format of `COPY`: per row the number of its fields, per field
/// its length and its bytes. <https://www.postgresql.org/docs/15/sql-copy.html>
struct Table {
    name: &'static str,
    columns: &'static str,
    fields: i16,
    rows: BytesMut,
    /// Rows that may be there already.
    old: (Vec<Uuid>, Vec<Vec<u8>>),
}

/// Postgres counts from the year 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Table {
    fn new(name: &'static str, columns: &'static str) -> Self {
        let fields = i16::try_from(columns.split(',').count()).expect("few columns");
        Self { name, columns, fields, rows: BytesMut::new(), old: Default::default() }
    }

    /// Begins a row; `is_new`: it is not there already.
    fn row(&mut self, show: ShowId, own: [u8; 10], is_new: bool) {
        if self.rows.is_empty() {
            self.rows.put_slice(b"PGCOPY\n\xff\r\n\0");
            self.rows.put_i64(0);
        }
        if !is_new {
            self.old.0.push(show.0);
            self.old.1.push(own.to_vec());
        }
        self.rows.put_i16(self.fields);
        self.bytes(show.0.as_bytes());
        self.bytes(&own);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.rows.put_i32(i32::try_from(value.len()).expect("a field is short"));
        self.rows.put_slice(value);
    }

    fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes(value),
            None => self.rows.put_i32(-1),
        }
    }

    fn name(&mut self, value: impl Serialize) {
        self.bytes(name(value).as_bytes());
    }

    fn time(&mut self, at: Timestamp) {
        self.bytes(&(at.as_microsecond() - EPOCH_MICROS).to_be_bytes());
    }

    async fn write(mut self, transaction: &Transaction<'_>) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.rows.put_i16(-1);
        let (shows, own) = &self.old;
        if !shows.is_empty() {
            let delete = format!(
                "DELETE FROM {} t USING unnest($1::uuid[], $2::bytea[]) AS b (show_id, own)
                  WHERE t.show_id = b.show_id AND t.own = b.own",
                self.name
            );
            let delete = transaction.prepare_cached(&delete).await?;
            transaction.execute(&delete, &[shows, own]).await?;
        }
        let copy = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.name, self.columns);
        let copy = transaction.prepare_cached(&copy).await?;
        let mut sink = pin!(transaction.copy_in::<_, Bytes>(&copy).await?);
        sink.send(self.rows.freeze()).await?;
        sink.finish().await?;
        Ok(())
    }
}
