//! A show that another process of this region leads, followed: its seats as the journal tells them, kept
//! current by what the leader says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::ShowId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::message::Message;
use super::{HELLO, Inner, Order, PATIENCE, Publisher, Slot};
use crate::host::Proof;
use crate::journal::{Ballot, JournalError};
use crate::live::Live;
use crate::show::Show;

/// A leader that says nothing for so long leads no more.
const SILENCE: Duration = Duration::from_secs(4);
/// How often to look whether to go on, and, while Redis is away, into the journal.
const LOOK: Duration = Duration::from_millis(500);
/// Without watchers and readers a copy is let go after this.
const IDLE: Duration = Duration::from_secs(60);
/// Messages that may wait; a flood beyond is read from the journal.
const INBOX: usize = 256;

/// What a copy is told.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Said(Message),
    /// The connection to Redis is lost; it stands again.
    Away,
    Back,
}

pub(super) struct Copy {
    pub live: Arc<Live>,
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

impl Copy {
    /// Listens first and reads the journal then, so that nothing falls in between. `away`: Redis is, and the
    /// journal is read again and again until it is back.
    pub async fn start(inner: &Arc<Inner>, show: ShowId, leader: Ballot, away: bool) -> Result<Self, String> {
        let (inbox, heard) = mpsc::channel(INBOX);
        let (done, subscribed) = oneshot::channel();
        let order = Order::Subscribe(show, inbox, done);
        inner.orders.send(order).map_err(|_| "the process stops")?;
        let made = async {
            if !away {
                timeout(PATIENCE, subscribed)
                    .await
                    .map_err(|_| "no answer to a subscription in time")?
                    .map_err(|_| "Redis went away")?;
            }
            let journal = &inner.means.journal;
            let committed = journal.committed(show).await.map_err(|e| e.to_string())?;
            let committed = committed.ok_or("the show has no journal here")?;
            let state = journal.fold(show, committed).await.map_err(|e| e.to_string())?;
            state.ok_or_else(|| "the journal is empty".to_owned())
        };
        let state = match made.await {
            Ok(state) => state,
            Err(why) => {
                let _ = inner.orders.send(Order::Unsubscribe(show));
                return Err(why);
            }
        };
        let metrics = inner.means.metrics.clone();
        let live = Live::new(leader.epoch, state.seq, &state, Publisher::default(), Proof::never(), metrics);
        let (refresh, asked) = mpsc::channel(16);
        let task = Following { inner: inner.clone(), live: live.clone(), state, heard, asked, away };
        tokio::spawn(task.run());
        let mut connection = inner.connection.clone();
        tokio::spawn(async move {
            let mut hello = redis::cmd("PUBLISH");
            hello.arg(HELLO).arg(show.to_string());
            // Unheard, the leader learns it with its next claim.
            let _ = timeout(PATIENCE, hello.query_async::<()>(&mut connection)).await;
        });
        Ok(Self { live, refresh })
    }

    pub async fn refresh(&self) {
        let (done, read) = oneshot::channel();
        if self.refresh.send(done).await.is_ok() {
            let _ = read.await;
        }
    }
}

struct Following {
    inner: Arc<Inner>,
    live: Arc<Live>,
    /// The journal as far as it was read; what was heard since is only in `live`.
    state: Show,
    heard: mpsc::Receiver<Heard>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    away: bool,
}

impl Following {
    async fn run(mut self) {
        let show = self.live.show;
        let why = self.follow().await;
        tracing::debug!(%show, why, "stopped following");
        let slot = self.inner.copies().get(&show).cloned();
        if let Some(slot) = slot.filter(|slot| self.is_of(slot)) {
            self.inner.forget(show, &slot);
        }
        let _ = self.inner.orders.send(Order::Unsubscribe(show));
        self.live.end();
    }

    fn is_of(&self, slot: &Slot) -> bool {
        slot.copy.get().is_some_and(|copy| Arc::ptr_eq(&copy.live, &self.live))
    }

    async fn follow(&mut self) -> &'static str {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut spoken, mut used) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                heard = self.heard.recv() => {
                    spoken = Instant::now();
                    match heard {
                        None => return "the listener is gone",
                        Some(Heard::Said(message)) => self.take(message).await,
                        Some(Heard::Away) => self.away = true,
                        Some(Heard::Back) => {
                            self.away = false;
                            self.read_journal().await;
                        }
                    }
                }
                Some(done) = self.asked.recv() => {
                    self.read_journal().await;
                    let _ = done.send(());
                }
                _ = looks.tick() => {
                    if self.was_used() {
                        used = Instant::now();
                    }
                    if let Some(why) = self.why_end(spoken, used) {
                        return why;
                    }
                    if self.away {
                        self.read_journal().await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let complete = match message {
            Message::Beat { seq } => seq <= self.live.seq(),
            Message::Delta(delta) => self.live.apply(&delta),
        };
        if !complete {
            self.inner.means.metrics.relay.gaps.inc();
            self.read_journal().await;
        }
    }

    /// Goes on from what was read to what is committed now.
    async fn read_journal(&mut self) {
        if let Err(error) = self.try_read_journal().await {
            tracing::warn!(show = %self.live.show, %error, "cannot read a followed show's journal");
        }
    }

    async fn try_read_journal(&mut self) -> Result<(), JournalError> {
        let (show, journal) = (self.live.show, &self.inner.means.journal);
        for entry in journal.committed_after(show, self.state.seq).await? {
            self.state.apply(entry.seq, &entry.groups).map_err(|why| JournalError::Corrupt {
                show,
                seq: entry.seq,
                why,
            })?;
        }
        self.live.publish(&self.state);
        Ok(())
    }

    fn was_used(&self) -> bool {
        let slot = self.inner.copies().get(&self.live.show).cloned();
        self.live.watchers() > 0 || slot.is_some_and(|slot| slot.used.swap(false, Ordering::Relaxed))
    }

    fn why_end(&self, spoken: Instant, used: Instant) -> Option<&'static str> {
        let means = &self.inner.means;
        let show = self.live.show;
        let record = means.view.show(show);
        if record.is_some_and(|r| r.owner != means.region || r.epoch > self.live.epoch) {
            return Some("it has changed hands");
        }
        if !self.away && spoken.elapsed() > SILENCE {
            return Some("nobody says that it leads");
        }
        // While Redis is away nobody says anything; but who leads lets reservations lapse.
        let lapsed = self
            .state
            .next_deadline()
            .is_some_and(|at| jiff::Timestamp::now().duration_since(at) > jiff::SignedDuration::from_secs(2));
        if self.away && lapsed {
            return Some("nobody leads while Redis is away");
        }
        (used.elapsed() > IDLE).then_some("nobody asks for it")
    }
}
