//! The leader's way into the log.
//!
//! openraft 0.9 goes all its way once for each client write. So commands queue here, and all that wait when a
//! place is free go into one log entry: a hundred callers cost one flush on each voter.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::metrics::Metrics;
use crate::state::{Answer, Command, Proposal};
use crate::types::Raft;

/// In one entry.
const BATCH_MAX: usize = 256;
/// Entries on their way at the same time: enough to fill a round trip between regions, few enough that
/// commands gather meanwhile.
const IN_FLIGHT_MAX: usize = 4;
/// Where one is on its way for less, its flushes hold it up, and so would those of the next: commands gather
/// instead. Beyond, it waits for another region.
const GATHER: Duration = Duration::from_millis(3);
/// Beyond these, callers wait for a place.
const QUEUE_MAX: usize = 4096;
const COMMIT_DEADLINE: Duration = Duration::from_secs(2);

/// Why there is no answer. In each case the command may be repeated, here or at another voter.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unsettled {
    #[error("this voter does not lead")]
    NotLeader,
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Result<Answer, Unsettled>>,
}

#[derive(Clone)]
pub struct Proposals {
    queue: mpsc::Sender<Waiting>,
}

impl Proposals {
    /// Spawns the task that empties the queue; it ends with the last handle.
    pub fn start(raft: Raft, metrics: Metrics) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(drain(waiting, raft, metrics));
        Self { queue }
    }

    /// Answers once the command is committed and applied here.
    pub async fn propose(&self, command: Command) -> Result<Answer, Unsettled> {
        let (answer, answered) = oneshot::channel();
        let stopping = |_| Unsettled::Unknown("this voter is stopping".into());
        let settled = async {
            self.queue.send(Waiting { command, answer }).await.map_err(|e| stopping(e.to_string()))?;
            answered.await.map_err(|e| stopping(e.to_string()))?
        };
        let deadline = timeout(2 * COMMIT_DEADLINE, settled).await;
        deadline.unwrap_or_else(|_| Err(Unsettled::Unknown("the queue is long".into())))
    }
}

async fn drain(mut queue: mpsc::Receiver<Waiting>, raft: Raft, metrics: Metrics) {
    let (places, ended) = (Arc::new(Semaphore::new(IN_FLIGHT_MAX)), Arc::new(Notify::new()));
    let mut begun = Instant::now();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        while places.available_permits() < IN_FLIGHT_MAX - 1 && begun.elapsed() < GATHER {
            tokio::select! {
                () = ended.notified() => {}
                () = sleep_until(begun + GATHER) => {}
            }
        }
        let mut batch = Vec::new();
        if queue.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        begun = Instant::now();
        let (raft, metrics, ended) = (raft.clone(), metrics.clone(), Arc::clone(&ended));
        tokio::spawn(async move {
            commit(&raft, &metrics, batch).await;
            drop(place);
            ended.notify_one();
        });
    }
}

async fn commit(raft: &Raft, metrics: &Metrics, batch: Vec<Waiting>) {
    let (mut commands, callers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.command, waiting.answer)).unzip();
    let alone = commands.len() == 1;
    let command = if alone { commands.remove(0) } else { Command::Batch(commands) };

    let begun = Instant::now();
    let settled = write(raft, command).await;
    if settled.is_ok() {
        metrics.commit_duration_seconds.observe(begun.elapsed().as_secs_f64());
    }
    let answers: Vec<Result<Answer, Unsettled>> = match settled {
        Ok(answer) if alone => vec![Ok(answer)],
        Ok(Answer::Batch(answers)) if answers.len() == callers.len() => answers.into_iter().map(Ok).collect(),
        Ok(other) => {
            tracing::error!(answer = ?other, "a batch was not answered as one");
            vec![Err(Unsettled::Unknown("the registry gave no usable answer".into())); callers.len()]
        }
        Err(unsettled) => vec![Err(unsettled); callers.len()],
    };
    for (caller, answer) in callers.into_iter().zip(answers) {
        metrics.proposed(&answer);
        // A caller may have given up; the command stands all the same.
        let _ = caller.send(answer);
    }
}

async fn write(raft: &Raft, command: Command) -> Result<Answer, Unsettled> {
    match timeout(COMMIT_DEADLINE, raft.client_write(Proposal::new(command))).await {
        Ok(Ok(written)) => Ok(written.data),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(Unsettled::NotLeader),
        Ok(Err(error)) => Err(Unsettled::Unknown(error.to_string())),
        Err(_) => Err(Unsettled::Unknown("no quorum in time".into())),
    }
}
