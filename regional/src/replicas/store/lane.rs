//! The task that carries requests out: what waits goes into one transaction.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use common::ShowId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::batch;
use super::statements::{Change, Connection};
use super::{Means, Told, Work};
use crate::journal::{Journal, surely_rolled_back};
use crate::replicas::{Answer, Reply};
use crate::replication::Unable;
use crate::replication::replica::Standing;

/// Requests in one transaction at most, and their entries in bytes.
const MAX_BATCH: usize = 512;
const MAX_BYTES: usize = 8 << 20;

/// After this the outcome of a transaction is unknown.
const DEADLINE: Duration = Duration::from_secs(5);

/// A request on its way.
pub struct Waiting {
    pub show: ShowId,
    pub work: Work,
    pub answer: oneshot::Sender<Told>,
    /// Given back when it is answered.
    pub _room: OwnedSemaphorePermit,
}

pub struct Lane {
    means: Means,
    /// The way in, for what has to be carried out once more.
    own: mpsc::WeakSender<Waiting>,
    connection: Option<Connection>,
}

/// What became of a request in a transaction that committed.
enum Outcome {
    Told(Told),
    /// The show has no head here, and may have lost it.
    Doubtful(u64, Told),
    /// Its rows cannot be read.
    Unreadable,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not done: {0}")]
    NotDone(String),
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = crate::journal::describe(&error);
        if surely_rolled_back(&error) { Self::NotDone(why) } else { Self::Unknown(why) }
    }
}

impl Lane {
    pub fn new(means: Means, own: mpsc::WeakSender<Waiting>) -> Self {
        Self { means, own, connection: None }
    }

    pub async fn run(mut self, mut receiver: mpsc::Receiver<Waiting>) {
        let (mut arrived, mut queue) = (Vec::with_capacity(MAX_BATCH), VecDeque::new());
        loop {
            if queue.is_empty() && receiver.recv_many(&mut arrived, MAX_BATCH).await == 0 {
                return;
            }
            queue.extend(arrived.drain(..));
            while queue.len() < MAX_BATCH
                && let Ok(waiting) = receiver.try_recv()
            {
                queue.push_back(waiting);
            }
            let batch = next_batch(&mut queue);
            self.carry_out(batch).await;
        }
    }

    async fn carry_out(&mut self, batch: Vec<Waiting>) {
        let Err(failed) = self.transact(batch).await else { return };
        let Some(batch) = failed else { return };
        // Postgres itself refused: one show's rows, most likely. The others need not suffer.
        let mut shows: Vec<(ShowId, Vec<Waiting>)> = Vec::new();
        for waiting in batch {
            match shows.iter_mut().find(|(show, _)| *show == waiting.show) {
                Some((_, of_show)) => of_show.push(waiting),
                None => shows.push((waiting.show, vec![waiting])),
            }
        }
        if shows.len() > 1 {
            for (_, of_show) in shows {
                let _ = self.transact(of_show).await;
            }
        }
    }

    /// Gives the batch back where it surely was not done.
    async fn transact(&mut self, batch: Vec<Waiting>) -> Result<(), Option<Vec<Waiting>>> {
        let timer = self.means.metrics.transaction_seconds.start_timer();
        let done = tokio::time::timeout(DEADLINE, self.attempt(&batch)).await;
        timer.observe_duration();
        let done = done.unwrap_or_else(|_| Err(Failure::Unknown("no answer in time".into())));
        match done {
            Ok(told) => {
                self.means.metrics.transactions("done");
                self.means.metrics.transaction_requests.observe(batch.len() as f64);
                for (waiting, outcome) in batch.into_iter().zip(told) {
                    match outcome {
                        Outcome::Told(told) => tell(&self.means, waiting, told),
                        Outcome::Doubtful(incarnation, told) => {
                            let (means, own) = (self.means.clone(), self.own.clone());
                            tokio::spawn(once_more_if_new(means, own, waiting, incarnation, told));
                        }
                        Outcome::Unreadable => {}
                    }
                }
                Ok(())
            }
            Err(failure) => {
                tracing::warn!(%failure, requests = batch.len(), "replicas answer nothing");
                // Whatever state it is in, and whatever still runs there.
                self.connection = None;
                if matches!(failure, Failure::NotDone(_)) {
                    self.means.metrics.transactions("failed");
                    return Err(Some(batch));
                }
                self.means.metrics.transactions("unknown");
                Err(None)
            }
        }
    }

    /// One transaction; what becomes of the requests, in their order.
    async fn attempt(&mut self, batch: &[Waiting]) -> Result<Vec<Outcome>, Failure> {
        let not_done = |error: anyhow::Error| Failure::NotDone(format!("{error:#}"));
        let connection = self.connect().await.map_err(not_done)?;
        let ranges = batch::ranges(batch.iter().map(|waiting| (waiting.show, &waiting.work)));
        // Read before the rows are: a head that has followed a newer incarnation is whole in it.
        let standings: HashMap<ShowId, Standing> =
            ranges.iter().map(|(show, ..)| (*show, self.means.standings.standing(*show))).collect();
        let mut found = connection.begin(&ranges).await?;
        let missing = ranges.iter().map(|(show, ..)| *show).filter(|show| !found.heads.contains_key(show));
        let missing: Vec<ShowId> = missing.collect();
        let (creatable, doubtful) = creatable(&missing, &standings, batch);
        if !creatable.is_empty() {
            found = connection.create(&creatable, &ranges).await?;
        }
        let mut shows = batch::working(found, &standings);
        let mut replies = Vec::with_capacity(batch.len());
        for waiting in batch {
            replies.push(shows.get_mut(&waiting.show).map(|show| show.handle(waiting.work.clone())));
        }
        let changes: Vec<Change<'_>> = shows.iter().filter_map(|(show, of)| of.change(*show)).collect();
        let mark = connection.finish(&changes).await?;
        self.means.guard.saw(mark);
        self.means.commits.tell(changes.iter().map(|change| change.show));
        if self.means.guard.lost().is_some() {
            return Err(Failure::Unknown("the store went back in time".into()));
        }
        let outcome = |(reply, waiting): (Option<Reply>, &Waiting)| match (reply, doubtful.get(&waiting.show))
        {
            (Some(reply), Some(incarnation)) => Outcome::Doubtful(*incarnation, Told { reply, mark }),
            (Some(reply), None) => Outcome::Told(Told { reply, mark }),
            (None, _) => Outcome::Unreadable,
        };
        Ok(replies.into_iter().zip(batch).map(outcome).collect())
    }

    async fn connect(&mut self) -> anyhow::Result<Connection> {
        if let Some(connection) = self.connection.as_ref().filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.means.pool).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }
}

/// Which missing heads are made; and, by the incarnation in which they would be whole, those that may have been
/// lost: a store that has lost something may have lost a head, unless the show is newer than the loss.
fn creatable(
    missing: &[ShowId],
    standings: &HashMap<ShowId, Standing>,
    batch: &[Waiting],
) -> (Vec<(ShowId, u64)>, HashMap<ShowId, u64>) {
    let (mut creatable, mut doubtful) = (Vec::new(), HashMap::new());
    for show in missing {
        let Some(standing) = standings.get(show).filter(|standing| standing.member) else { continue };
        let mut of_show = batch.iter().filter(|waiting| waiting.show == *show);
        let restores = of_show.any(|waiting| matches!(waiting.work, Work::Restore(_)));
        if restores || standing.incarnation == 0 {
            // The one that is about to be restored is not whole yet either way.
            creatable.push((*show, 0));
        } else {
            doubtful.insert(*show, standing.incarnation);
        }
    }
    (creatable, doubtful)
}

fn tell(means: &Means, waiting: Waiting, told: Told) {
    means.metrics.answered(&told.reply.answer);
    if told.reply.answer == Answer::Unable(Unable::Recovering) {
        means.wanted.add(waiting.show);
    }
    // Who asked may have gone.
    let _ = waiting.answer.send(told);
}

/// A request met no head: if there was none to lose, one is made, and the request carried out; else `told` is the
/// answer.
async fn once_more_if_new(
    means: Means,
    own: mpsc::WeakSender<Waiting>,
    waiting: Waiting,
    incarnation: u64,
    told: Told,
) {
    let show = waiting.show;
    let made = async {
        let is_new = means.standings.is_new(show).await?;
        if is_new {
            Journal::new(means.pool.clone()).create(show, incarnation).await?;
        }
        anyhow::Ok(is_new)
    };
    match (made.await, own.upgrade()) {
        (Ok(true), Some(lane)) => {
            let _ = lane.send(waiting).await;
        }
        (Ok(false), _) => tell(&means, waiting, told),
        (Ok(true), None) => {}
        (Err(error), _) => {
            tracing::warn!(%show, error = %format!("{error:#}"), "cannot tell whether the show is new");
        }
    }
}

/// From the front of the queue, in its order.
fn next_batch(queue: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < MAX_BATCH
        && let Some(next) = queue.front()
    {
        bytes += next.work.weight();
        if bytes > MAX_BYTES && !batch.is_empty() {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}
