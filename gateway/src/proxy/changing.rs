//! A request whose show is changing hands, or may be: held until there is news, and asked again where that is
//! safe, all within its own deadline.
//!
//! Invariant: it is held only where it surely was not acted on, or may be repeated; and only for shows that another
//! region could take over, so that who has one region is told at once.

use std::pin::Pin;
use std::time::Duration;

use common::{Problem, RegionName, ShowId};
use http::Response;
use tokio::time::{Instant, timeout_at};

use super::client::Fault;
use super::links::Answered;
use super::place::Place;
use super::{Journey, backoff, hold};
use crate::app::Gateway;
use crate::directory::Upstream;

/// An answer that takes longer may be of an owner that is cut off: then news of another are listened for.
const SLOW: Duration = Duration::from_millis(700);

impl Journey<'_> {
    /// Whether another region keeps the show's journal, so that it may come to own it.
    pub(super) fn may_change_hands(&self) -> bool {
        self.place.show().is_some_and(|show| self.app.ownership.replicas(show).len() > 1)
    }

    /// Waits for news of the show, or a moment; false when there is no time left.
    pub(super) async fn wait_for_news(&mut self, epoch: u64) -> Result<bool, Problem> {
        self.waits += 1;
        if self.held.is_none() {
            self.held = Some(self.app.waiting.hold(self.body.len())?);
            self.app.metrics.held.inc();
        }
        let pause = backoff(self.waits);
        Ok(hold::news(self.app, self.place.show(), epoch, pause, self.deadline).await)
    }

    /// The epoch that is known here.
    pub(super) fn epoch(&self) -> u64 {
        self.place.show().and_then(|show| self.app.ownership.epoch(show)).unwrap_or(0)
    }

    /// The show whose owner's silence may be left for the next: the request may be repeated there.
    pub(super) fn may_leave(&self) -> Option<ShowId> {
        let Place::Show(show) = self.place else { return None };
        let may_be_repeated = self.body.is_repeatable() && self.outgoing.is_repeatable();
        (may_be_repeated && self.may_change_hands()).then_some(show)
    }
}

/// Waits for an answer. Where the request may be repeated it is given up when the show has got another owner
/// meanwhile, who will know under its key what became of it.
pub(super) async fn or_left(
    app: &Gateway,
    mut attempt: Pin<&mut impl Future<Output = Result<Response<Answered>, Fault>>>,
    upstream: &Upstream,
    may_leave: Option<ShowId>,
) -> Result<Response<Answered>, Fault> {
    let Some(show) = may_leave else { return attempt.await };
    if let Ok(answer) = timeout_at(Instant::now() + SLOW, &mut attempt).await {
        return answer;
    }
    tokio::select! {
        answer = &mut attempt => answer,
        () = has_moved_from(app, show, upstream.region.as_ref()) => {
            Err(Fault::Broken("its show has another owner now".into()))
        }
    }
}

async fn has_moved_from(app: &Gateway, show: ShowId, region: Option<&RegionName>) {
    let mut changes = app.ownership.changes();
    while app.ownership.owner(show).as_ref() == region {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
