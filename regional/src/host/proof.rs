//! What proves to readers that a leader was not replaced without hearing of it: a majority of the show's regions
//! answered it, at a time that is counted from when they were asked (R15).
//!
//! Invariant: a "no" (there is no such thing, it cannot be done) that rests on what a leader has in memory is
//! given only with such a proof. A "yes" needs none: it is committed, and stays so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::HostError;
use super::clock::boot_ms;

/// For how long a proof lets a leader answer reads without a stamp. Shorter than the registry's
/// patience with a region.
pub const LEASE_MS: u64 = 2_000;

/// What was not answered is asked again after this, so many times.
const REPEAT: Duration = Duration::from_millis(500);
const TIMES: usize = 4;

/// Of one reign, for all who read under it.
#[derive(Default)]
pub struct Proof {
    /// One more than the last time from which a majority has answered; 0: none has.
    proven: AtomicU64,
    asked: Mutex<Asked>,
    /// To the reign: somebody asks for a later one.
    wake: Notify,
}

#[derive(Default)]
struct Asked {
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// The reign is over.
    ended: bool,
}

impl Proof {
    /// Of who only follows: there is nobody to ask.
    pub fn never() -> Arc<Self> {
        let proof = Self::default();
        proof.end();
        Arc::new(proof)
    }

    /// Whether nobody else led when the lease began, which is not over.
    pub fn holds_lease(&self) -> bool {
        self.is_proven(boot_ms().saturating_sub(LEASE_MS))
    }

    /// Waits until it is proven that nobody else leads now.
    pub async fn now(&self) -> Result<(), HostError> {
        self.from(boot_ms()).await
    }

    /// The same of some moment at `since` or later.
    pub(super) async fn from(&self, since: u64) -> Result<(), HostError> {
        for _ in 0..TIMES {
            if self.is_proven(since) {
                return Ok(());
            }
            match timeout(REPEAT, self.ask(since)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(HostError::Stopped),
                Err(_) => {}
            }
        }
        Err(HostError::Unavailable("no majority of the show's regions answers its leader".into()))
    }

    fn ask(&self, since: u64) -> oneshot::Receiver<()> {
        let (proven, answer) = oneshot::channel();
        let mut asked = self.asked();
        if !asked.ended {
            asked.waiting.retain(|(_, before)| !before.is_closed());
            asked.waiting.push((since, proven));
            self.wake.notify_one();
        }
        answer
    }

    pub(super) fn is_proven(&self, since: u64) -> bool {
        self.proven.load(Ordering::Acquire) > since
    }

    /// Waits until somebody asks.
    pub(super) async fn asked_for(&self) {
        self.wake.notified().await;
    }

    /// The earliest time that somebody waits to be proven.
    pub(super) fn wanted(&self) -> Option<u64> {
        self.asked().waiting.iter().map(|(since, _)| *since).min()
    }

    /// A majority has answered what was sent at `since` or later.
    pub(super) fn note(&self, since: u64) {
        if self.is_proven(since) {
            return;
        }
        self.proven.store(since + 1, Ordering::Release);
        for (_, waits) in self.asked().waiting.extract_if(.., |(from, _)| *from <= since) {
            // Who no longer waits needs no proof.
            let _ = waits.send(());
        }
    }

    /// The reign is over: nothing is proven any more.
    pub(super) fn end(&self) {
        let mut asked = self.asked();
        asked.ended = true;
        asked.waiting.clear();
        self.proven.store(0, Ordering::Release);
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no code panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proof_is_as_old_as_its_question() {
        let proof = Arc::new(Proof::default());
        assert!(!proof.holds_lease(), "nobody has answered");
        let began = boot_ms();
        proof.note(began);
        assert!(proof.holds_lease() && proof.from(began).await.is_ok());
        // What is asked now is not proven by what was answered before.
        let waits = tokio::spawn({
            let proof = proof.clone();
            async move { proof.from(began + 1).await }
        });
        proof.asked_for().await;
        assert_eq!(proof.wanted(), Some(began + 1));
        proof.note(began);
        assert!(!waits.is_finished() && proof.wanted().is_some());
        proof.note(began + 2);
        assert!(waits.await.unwrap().is_ok());
        assert!(proof.wanted().is_none() && proof.from(began + 2).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_proven_without_answers_or_after_the_reign() {
        let proof = Arc::new(Proof::default());
        assert!(matches!(proof.now().await, Err(HostError::Unavailable(_))));
        proof.note(boot_ms());
        let waits = tokio::spawn({
            let proof = proof.clone();
            async move { proof.from(u64::MAX).await }
        });
        proof.asked_for().await;
        proof.end();
        assert!(matches!(waits.await.unwrap(), Err(HostError::Stopped)));
        assert!(!proof.holds_lease() && matches!(proof.now().await, Err(HostError::Stopped)));
        assert!(matches!(Proof::never().now().await, Err(HostError::Stopped)));
    }
}
