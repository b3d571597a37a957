//! The own store as its leader asks it: one show's message in one transaction, by the replica's rules.

use common::RegionName;
use common::ShowId;
use deadpool_postgres::{Pool, Transaction};
use raft::client::RegistryView;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::journal::{Ballot, Stored};
use crate::replicas::{Entry, Hash, Head, Mark, Payload, Regional, Reply, Request};
use crate::replication::Strict;
use crate::replication::replica::{Replica, Standing, Write};

const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Own {
    pub pool: Pool,
    pub region: RegionName,
    pub view: RegistryView,
}

fn big(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn num(n: i64) -> u64 {
    n.unsigned_abs()
}

impl Own {
    pub async fn handle(&self, show: ShowId, request: Request) -> Result<Reply, String> {
        match tokio::time::timeout(DEADLINE, self.transact(show, request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err("no answer in time".into()),
        }
    }

    fn standing(&self, show: ShowId) -> Standing {
        let record = self.view.show(show);
        let regions = self.view.regions();
        let incarnation = regions.iter().find(|r| r.name == self.region).map_or(0, |r| r.incarnation);
        match record {
            Some(record) => Standing {
                epoch: record.epoch,
                member: record.replicas.contains(&self.region) || record.prior.contains(&self.region),
                incarnation,
            },
            None => Standing { epoch: 0, member: false, incarnation },
        }
    }

    async fn transact(&self, show: ShowId, request: Request) -> anyhow::Result<Reply> {
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        let standing = self.standing(show);
        let head = head(&tx, show).await?;
        let (from, to) = match &request {
            Request::Append(a) | Request::Extend(a) => (a.prev.seq, a.upto()),
            Request::Fetch { after, .. } => (*after, *after + 256),
            _ => (1, 0),
        };
        let mut entries = entries(&tx, show, from, to).await?;
        let held: BTreeMap<u64, Mark> = entries.iter().map(|e| (e.seq, e.mark())).collect();
        let replica = Replica::<Regional, _> { rules: Strict, standing, head: &head, held: &held };
        if let Request::Fetch { ballot, after } = request {
            let before = if after == 0 { Some(Mark::default()) } else { held.get(&after).cloned() };
            entries.retain(|e| e.seq > after);
            let reply = replica.fetched(ballot, before, entries);
            tx.commit().await?;
            return Ok(reply);
        }
        let step = replica.handle(request);
        if let Some(write) = step.write {
            carry_out(&tx, show, write).await?;
        }
        tx.commit().await?;
        Ok(step.reply)
    }
}

async fn head(tx: &Transaction<'_>, show: ShowId) -> anyhow::Result<Head> {
    let insert = "INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt)
                  VALUES ($1, 0, 0, 0) ON CONFLICT DO NOTHING";
    let select = "SELECT * FROM show_head WHERE show_id = $1 FOR UPDATE";
    let mut row = tx.query_opt(select, &[&show.0]).await?;
    if row.is_none() {
        tx.execute(insert, &[&show.0]).await?;
        row = tx.query_opt(select, &[&show.0]).await?;
    }
    let row = row.ok_or_else(|| anyhow::anyhow!("no head"))?;
    let ballot = |p: &str| Ballot {
        epoch: num(row.get(&*format!("{p}_epoch"))),
        session: num(row.get(&*format!("{p}_session"))),
        attempt: num(row.get(&*format!("{p}_attempt"))),
    };
    let digest = Hash::from_slice(row.get("hash")).ok_or_else(|| anyhow::anyhow!("a hash"))?;
    Ok(Head {
        incarnation: num(row.get("incarnation")),
        promised: ballot("promised"),
        last: Mark { seq: num(row.get("seq")), ballot: ballot("accepted"), digest },
        committed: num(row.get("committed")),
    })
}

async fn entries(tx: &Transaction<'_>, show: ShowId, from: u64, to: u64) -> anyhow::Result<Vec<Entry>> {
    if to < from {
        return Ok(Vec::new());
    }
    let select = "SELECT seq, epoch, session, attempt, at, format, hash, events FROM show_journal
                   WHERE show_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq";
    let rows = tx.query(select, &[&show.0, &big(from), &big(to)]).await?;
    rows.iter()
        .map(|row| {
            let stored = Stored {
                seq: row.get("seq"),
                ballot: [row.get("epoch"), row.get("session"), row.get("attempt")],
                at: row.get("at"),
                format: row.get("format"),
                hash: row.get("hash"),
                events: row.get("events"),
            };
            let [epoch, session, attempt] = stored.ballot.map(num);
            Ok(Entry {
                seq: num(stored.seq),
                ballot: Ballot { epoch, session, attempt },
                digest: Hash::from_slice(&stored.hash).ok_or_else(|| anyhow::anyhow!("a hash"))?,
                payload: Payload { show, at: stored.at, format: stored.format, events: stored.events.into() },
            })
        })
        .collect()
}

async fn carry_out(tx: &Transaction<'_>, show: ShowId, write: Write<Regional>) -> anyhow::Result<()> {
    if let Some(upto) = write.cut_after {
        tx.execute("DELETE FROM show_journal WHERE show_id = $1 AND seq > $2", &[&show.0, &big(upto)])
            .await?;
    }
    for e in write.add {
        let insert = "INSERT INTO show_journal VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let b = e.ballot;
        tx.execute(
            insert,
            &[
                &show.0,
                &big(e.seq),
                &big(b.epoch),
                &big(b.session),
                &big(b.attempt),
                &e.payload.at,
                &e.payload.format,
                &e.digest.as_slice(),
                &e.payload.events.as_ref(),
            ],
        )
        .await?;
    }
    let h = write.head;
    let update = "UPDATE show_head SET incarnation = $2, promised_epoch = $3, promised_session = $4,
        promised_attempt = $5, accepted_epoch = $6, accepted_session = $7, accepted_attempt = $8, seq = $9,
        hash = $10, committed = $11 WHERE show_id = $1";
    let (p, a) = (h.promised, h.last.ballot);
    tx.execute(
        update,
        &[
            &show.0,
            &big(h.incarnation),
            &big(p.epoch),
            &big(p.session),
            &big(p.attempt),
            &big(a.epoch),
            &big(a.session),
            &big(a.attempt),
            &big(h.last.seq),
            &h.last.digest.as_slice(),
            &big(h.committed),
        ],
    )
    .await?;
    Ok(())
}
