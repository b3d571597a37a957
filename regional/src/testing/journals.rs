//! Journals written by hand: whole ones, to be damaged or cut, past the writer and its checks.

use common::{ShowId, UserId};
use deadpool_postgres::Pool;
use jiff::Timestamp;

use crate::journal::{Ballot, chain};
use crate::show::tests::Stage;
use crate::show::{CheckIn, Command, Event, FORMAT, Group, Method, Outcome, encode};

/// An entry before it is chained.
#[derive(Clone)]
pub struct Draft {
    pub ballot: (i64, i64, i64),
    pub at: Timestamp,
    pub format: i16,
    pub groups: Vec<Group>,
}

impl Draft {
    /// The events of one kind in it, to be tampered with.
    pub fn event(&mut self) -> &mut Event {
        &mut self.groups[0].events[0]
    }
}

/// A show with a past: bought, canceled, refunded, lapsed, blocked and admitted; all of it settled.
pub fn story() -> Vec<Draft> {
    let mut stage = Stage::new();
    let customer = UserId::new();
    let (first, payment) = stage.buy(customer, &["A1", "A2"]);
    let (second, _) = stage.buy(customer, &["B1"]);
    stage.cancel(second, None, false).unwrap();
    let ticket = stage.ticket(first);
    stage.tell(Command::Block { seats: vec!["B4".into()], reason: "broken".into() });
    stage.reserve(customer, &["A3"]).unwrap();
    stage.pass(700);
    let scan = CheckIn { ticket, nonce: "1".into(), at: None, force: false };
    stage.tell(Command::CheckIn(scan));
    let declined = stage.reserve(UserId::new(), &["B2"]).unwrap();
    let failed = stage.start_payment(declined, Method::Card).unwrap();
    stage.settle(failed, Outcome::Failed { reason: "no".into(), declined: true });
    assert!(stage.show.payments.contains_key(&payment));
    let drafts = stage.journal.iter().map(|groups| Draft {
        ballot: (1, 1, 1),
        at: groups[0].at,
        format: FORMAT,
        groups: groups.clone(),
    });
    drafts.collect()
}

pub fn show_of(drafts: &[Draft]) -> ShowId {
    let events = drafts.iter().flat_map(|d| &d.groups).flat_map(|group| &group.events);
    let mut facts =
        events.filter_map(|e| if let Event::Created(facts) = e { Some(facts.show) } else { None });
    facts.next_back().unwrap()
}

/// Writes the journal with a chain and a head that fit it.
pub async fn write(pool: &Pool, drafts: &[Draft]) -> ShowId {
    let show = show_of(drafts);
    let client = pool.get().await.unwrap();
    let (mut hash, mut ballot) = (Vec::new(), (0, 0, 0));
    for (seq, draft) in (1_i64..).zip(drafts) {
        let events = encode(&draft.groups);
        ballot = draft.ballot;
        let part = |n: i64| u64::try_from(n).unwrap();
        let own = Ballot { epoch: part(ballot.0), session: part(ballot.1), attempt: part(ballot.2) };
        hash = chain(&hash, show, part(seq), own, draft.format, &events);
        let insert = "INSERT INTO show_journal VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        client
            .execute(
                insert,
                &[&show.0, &seq, &ballot.0, &ballot.1, &ballot.2, &draft.at, &draft.format, &hash, &events],
            )
            .await
            .unwrap();
    }
    let insert = "INSERT INTO show_head VALUES ($1, $2, $3, $4, $2, $3, $4, $5, $5, $6)";
    let seq = i64::try_from(drafts.len()).unwrap();
    client.execute(insert, &[&show.0, &ballot.0, &ballot.1, &ballot.2, &seq, &hash]).await.unwrap();
    show
}
