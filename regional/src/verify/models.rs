//! S6: the read models are what the committed journal folds to. Compared column by column, each table's rows of
//! a show with what the state says, so that a row too many and a row too few are both found.

use std::collections::BTreeMap;

use common::ShowId;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_postgres::Transaction;

use super::breach::{Findings, Rule};
use crate::reservations::view::Rest;
use crate::show::{Moment, Show};

/// The entry at which the read models stand; 0 where there are none.
pub(super) async fn projected(
    snapshot: &Transaction<'_>,
    show: ShowId,
) -> Result<i64, tokio_postgres::Error> {
    let select = "SELECT seq FROM projected WHERE show_id = $1";
    Ok(snapshot.query_opt(select, &[&show.0]).await?.map_or(0, |row| row.get(0)))
}

/// Compares the read models with `state`, the fold at `seq`, where they stand.
pub(super) async fn compare(
    snapshot: &Transaction<'_>,
    seq: i64,
    state: &Show,
    findings: &mut Findings,
) -> Result<(), tokio_postgres::Error> {
    let show = state.plan.facts.show;
    for (table, expected) in expected(state) {
        let found = rows(snapshot, table, show).await?;
        differences(table, &expected, &found, seq, findings);
    }
    Ok(())
}

type Table = BTreeMap<String, Map<String, Value>>;

/// What the state says, by table and id.
fn expected(state: &Show) -> [(&'static str, Table); 6] {
    let facts = &state.plan.facts;
    let show = row(json!({
        "cinema_id": facts.cinema.0, "hall_id": facts.hall.0, "movie_id": facts.movie.0,
        "starts_at": state.starts_at, "on_sale_at": state.on_sale_at, "status": state.status,
        "ends_at": crate::shows::view::ends_at(facts, state.starts_at),
    }));
    let reservations = state.reservations.values().map(|r| {
        let row = row(json!({
            "customer": r.customer.map(|customer| customer.0), "contact": r.contact,
            "reference": r.reference, "status": r.status,
            "created_at": r.created_at.time(), "expires_at": r.expires_at.time(),
            "rest": Rest::of(state, r).to_json(),
        }));
        (bytes(r.id.own()), row)
    });
    let payments = state.payments.values().map(|p| {
        let reservation = state.reservation_of(&p);
        let row = row(json!({
            "reservation": bytes(reservation.id.own()), "customer": reservation.customer.map(|customer| customer.0),
            "method": p.method, "status": p.status, "amount": p.amount, "refunded": p.refunded,
            "reason": p.failure(), "created_at": p.started_at.time(),
            "settled_at": p.settled_at.map(Moment::time),
        }));
        (bytes(p.id.own()), row)
    });
    let refunds = state.refunds.values().map(|r| {
        let row = row(json!({
            "payment": bytes(state.payment_of(&r).id.own()), "status": r.status, "amount": r.amount,
            "created_at": r.at.time(),
        }));
        (bytes(r.id.own()), row)
    });
    let tickets = state.reservations.values().flat_map(|r| {
        r.tickets().map(move |t| {
            let row = row(json!({
                "reservation": bytes(r.id.own()), "seat": state.plan.place(t.seat).name, "status": t.status,
            }));
            (bytes(t.id.own()), row)
        })
    });
    let [free, held, sold, blocked] = state.counts();
    let projected = row(json!({ "free": free, "held": held, "sold": sold, "blocked": blocked }));
    [
        ("projected", [(facts.show.0.to_string(), projected)].into()),
        ("shows", [(facts.show.0.to_string(), show)].into()),
        ("reservations", reservations.collect()),
        ("payments", payments.collect()),
        ("refunds", refunds.collect()),
        ("tickets", tickets.collect()),
    ]
}

/// As Postgres writes bytes.
fn bytes(own: [u8; 10]) -> String {
    format!("\\x{}", data_encoding::HEXLOWER.encode(&own))
}

fn row(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(row) => row,
        other => unreachable!("{other} is written as an object above"),
    }
}

async fn rows(snapshot: &Transaction<'_>, table: &str, show: ShowId) -> Result<Table, tokio_postgres::Error> {
    let (column, key) = match table {
        "shows" => ("id", "id::text"),
        "projected" => ("show_id", "show_id::text"),
        _ => ("show_id", "own::text"),
    };
    let select = format!("SELECT {key}, to_jsonb(t) FROM {table} t WHERE {column} = $1");
    let rows = snapshot.query(&select, &[&show.0]).await?;
    Ok(rows.iter().map(|row| (row.get(0), self::row(row.get(1)))).collect())
}

fn differences(table: &str, expected: &Table, found: &Table, seq: i64, findings: &mut Findings) {
    for (id, row) in expected {
        let Some(there) = found.get(id) else {
            findings.add(seq, Rule::ReadModel, format!("{table}: {id} is missing"));
            continue;
        };
        for (column, value) in row {
            if !same(value, there.get(column)) {
                let is = there.get(column).unwrap_or(&Value::Null);
                findings.add(seq, Rule::ReadModel, format!("{table}: {id}.{column} is {is}, not {value}"));
            }
        }
    }
    for id in found.keys().filter(|id| !expected.contains_key(*id)) {
        findings.add(seq, Rule::ReadModel, format!("{table}: {id} is not in the journal"));
    }
}

/// Times are compared to the microsecond, which is what Postgres keeps.
fn same(expected: &Value, found: Option<&Value>) -> bool {
    let found = found.unwrap_or(&Value::Null);
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match (time(expected), time(found)) {
        (Some(a), Some(b)) => a.as_microsecond().abs_diff(b.as_microsecond()) <= 1,
        _ => expected == found,
    }
}
