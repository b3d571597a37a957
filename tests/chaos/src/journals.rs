//! What every region's Postgres holds, and the provider's books, as the checker of histories wants them. Read by
//! plain statements of its own, as little as possible through what is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use common::{PaymentId, RefundId, ShowId};
use marquee::launcher::Run;
use regional::show::Event;
use regional::verify::Store;
use serde::Deserialize;
use simulation::history::{Ballot, Books, Charge, Entry, GivenBack, Journal, hex};

use crate::rooms::REGIONS;

/// The regions' databases, by place.
pub fn stores(run: &Run) -> anyhow::Result<Vec<Store>> {
    let store = |region: &&str| {
        let url = run.postgres.get(*region).context("run.json names no database")?;
        Ok(Store { region: (*region).to_owned(), pool: migrations::pool(url, 4)? })
    };
    REGIONS.iter().map(store).collect()
}

/// Of every show, whole.
pub async fn read(store: &Store) -> anyhow::Result<Vec<Journal>> {
    let snapshot = store.pool.get().await?;
    snapshot.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let number = |number: i64| u64::try_from(number).context("a negative number in a journal");
    let mut journals = BTreeMap::new();
    for row in snapshot.query("SELECT show_id, committed FROM show_head", &[]).await? {
        let show = ShowId(row.get(0));
        let committed = number(row.get(1))?;
        journals.insert(show, Journal { region: store.region.clone(), show, committed, entries: Vec::new() });
    }
    // Show by show, by the index: sorting all of them at once takes room on a disk that may have none.
    let select = "SELECT seq, epoch, session, attempt, format, hash, events FROM show_journal
                   WHERE show_id = $1 ORDER BY seq";
    for (show, journal) in &mut journals {
        for row in snapshot.query(select, &[&show.0]).await? {
            let groups = regional::show::decode(row.get(4), row.get(6)).map_err(anyhow::Error::msg)?;
            let ballot = Ballot {
                epoch: number(row.get(1))?,
                session: number(row.get(2))?,
                attempt: number(row.get(3))?,
            };
            journal.entries.push(Entry { seq: number(row.get(0))?, ballot, hash: hex(row.get(5)), groups });
        }
    }
    let headless = "SELECT count(*) FROM show_journal j
                     WHERE NOT EXISTS (SELECT 1 FROM show_head h WHERE h.show_id = j.show_id)";
    let headless: i64 = snapshot.query_one(headless, &[]).await?.get(0);
    anyhow::ensure!(headless == 0, "{headless} entries without a head");
    snapshot.batch_execute("COMMIT").await?;
    Ok(journals.into_values().collect())
}

#[derive(Deserialize)]
struct Charges {
    charges: Vec<ChargeRow>,
}

#[derive(Clone, Deserialize)]
struct ChargeRow {
    id: String,
    status: String,
    amount: i64,
    refunded: i64,
}

#[derive(Deserialize)]
struct RefundRow {
    amount: i64,
    status: String,
}

/// The provider's books. What it gave back is asked for by the journals' refunds; what it says it gave back beyond
/// those is an error of its own.
pub async fn books(run: &Run, journals: &[Journal]) -> anyhow::Result<(Books, Vec<String>)> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let get =
        |path: String| http.get(format!("{}{path}", run.provider.url)).bearer_auth(&run.provider.api_key);
    let (mut books, mut wrong) = (Books::default(), Vec::new());
    let mut given_back: BTreeMap<PaymentId, i64> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let listed = get(format!("/v1/charges?limit=1000{after}")).send().await?.error_for_status()?;
        let Charges { charges } = listed.json().await?;
        let Some(last) = charges.last() else { break };
        after = format!("&after={}", last.id);
        for charge in charges {
            let Ok(id) = charge.id.parse::<PaymentId>() else {
                wrong.push(format!("the provider has a charge {}, which is no payment's", charge.id));
                continue;
            };
            given_back.insert(id, charge.refunded);
            let captured = charge.status == "succeeded";
            books.charges.push(Charge { id, amount: charge.amount, captured });
        }
    }
    for (id, payment) in refunds(journals) {
        let answer = get(format!("/v1/refunds/{id}")).send().await?;
        if !answer.status().is_success() {
            continue;
        }
        let refund: RefundRow = answer.json().await?;
        if refund.status == "succeeded" {
            books.refunds.push(GivenBack { id, charge: payment, amount: refund.amount });
            *given_back.entry(payment).or_default() -= refund.amount;
        }
    }
    for (payment, rest) in given_back.into_iter().filter(|(_, rest)| *rest != 0) {
        wrong.push(format!("of {payment} the provider gave back {rest} that no journal knows of"));
    }
    Ok((books, wrong))
}

/// Of the journal that is known furthest, each refund and what it is of.
fn refunds(journals: &[Journal]) -> BTreeMap<RefundId, PaymentId> {
    let groups = journals.iter().flat_map(|journal| &journal.entries).flat_map(|entry| &entry.groups);
    let of = |event: &Event| match event {
        Event::RefundStarted { refund, payment, .. }
        | Event::PaymentUnclaimed { refund, payment }
        | Event::StrayReturned { refund, payment, .. } => Some((*refund, *payment)),
        Event::Canceled(cancellation) => {
            cancellation.refund.as_ref().map(|refund| (refund.refund, refund.payment))
        }
        _ => None,
    };
    groups.flat_map(|group| &group.events).filter_map(of).collect()
}
