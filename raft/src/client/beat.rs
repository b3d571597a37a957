//! A regional process' signs of life.

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::RegionName;
use common::proto::registry as proto;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::{Beat, Mark, RegionState, RegistryClient};
use crate::wire;

/// One voter's answer, forwarding to the leader included; then the next voter is tried.
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(700);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeatError {
    /// Nobody heard it; the next may be.
    #[error("no voter took the beat: {0}")]
    Unheard(String),
    /// The registry has ended the session: stop leading at once, and open another.
    #[error("the session has ended")]
    Ended,
}

/// What the registry answers to a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beaten {
    pub state: RegionState,
    pub incarnation: u64,
    /// The highest that any process told of this region's store. What is read of it from now on must not be
    /// lower.
    pub highest: Option<Mark>,
}

impl RegistryClient {
    /// Tries each voter once, the one that answered last first, within `within` altogether.
    pub async fn beat(
        &self,
        session: u64,
        region: &RegionName,
        beat: Beat,
        store: Option<Mark>,
        within: Duration,
    ) -> Result<Beaten, BeatError> {
        let Beat { healthy, caught_up } = beat;
        let store = store.map(Into::into);
        let request = proto::BeatRequest { session, region: region.to_string(), healthy, caught_up, store };
        let voters = &self.0.owners;
        let first = self.0.preferred.load(Ordering::Relaxed);
        let deadline = Instant::now() + within;
        let mut last = String::new();
        for turn in 0..voters.len() {
            let place = (first + turn) % voters.len();
            let left = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT_DEADLINE);
            let mut voter = voters[place].clone();
            match timeout(left, voter.beat(request.clone())).await {
                Ok(Ok(reply)) => {
                    self.0.preferred.store(place, Ordering::Relaxed);
                    return beaten(reply.into_inner());
                }
                Ok(Err(status)) if status.code() == Code::NotFound => return Err(BeatError::Ended),
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = "no answer in time".into(),
            }
        }
        Err(BeatError::Unheard(last))
    }
}

fn beaten(reply: proto::BeatReply) -> Result<Beaten, BeatError> {
    let state = wire::region_state(&reply.state).map_err(|error| BeatError::Unheard(error.to_string()))?;
    Ok(Beaten { state, incarnation: reply.incarnation, highest: reply.highest.map(Into::into) })
}
