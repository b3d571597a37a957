//! What regions have to tell people, over gRPC (`common/proto/notices.proto`): taken for those who want messages, put
//! into the outbox under the event's id.

use common::UserId;
use common::proto::notices::notices_server::Notices;
use common::proto::notices::{Notice, TellReply, TellRequest};
use jiff::{SignedDuration, Timestamp};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::texts::{Kind, compose};
use crate::accounts::store;
use crate::app::App;
use crate::fault::Result;
use crate::mail::outbox;
use crate::metrics::METRICS;
use crate::teller;

const MOST_AT_ONCE: usize = 1_000;
/// Of an older event nobody is told any more; what was sent is remembered for longer.
const NEWS: SignedDuration = SignedDuration::from_hours(72);

pub struct Server {
    pub app: App,
    pub tls: common::tls::Tls,
    /// Whether messages are sent at all.
    pub enabled: bool,
}

#[tonic::async_trait]
impl Notices for Server {
    async fn tell(&self, request: Request<TellRequest>) -> std::result::Result<Response<TellReply>, Status> {
        let caller = self.tls.caller(&request);
        let TellRequest { teller, notices } = request.into_inner();
        teller::teller(&caller, &teller)?;
        if notices.len() > MOST_AT_ONCE {
            return Err(Status::invalid_argument("too many notices at once"));
        }
        if self.enabled {
            self.take(&notices).await.map_err(|fault| Status::unavailable(fault.into_problem().detail))?;
        }
        Ok(Response::new(TellReply {}))
    }
}

impl Server {
    async fn take(&self, notices: &[Notice]) -> Result<()> {
        let db = self.app.db().await?;
        let mut news = Vec::with_capacity(notices.len());
        for notice in notices {
            match read(notice) {
                Some((id, user, kind, at)) if is_news(at) => news.push((id, user, kind, notice)),
                Some(_) => {}
                None => {
                    METRICS.mails.with_label_values(&["sms", "refused"]).inc();
                    tracing::error!(id = notice.id, kind = notice.kind, "a region's notice is none");
                }
            }
        }
        // Most want none: one look for all of them.
        let users: Vec<UserId> = news.iter().map(|(_, user, ..)| *user).collect();
        let wanting = store::wanting(&db, &users).await?;
        for (id, user, kind, notice) in news {
            if wanting.contains(&user)
                && outbox::put_message(&db, id, kind.as_str(), user, &compose(kind, notice)).await?
            {
                self.app.sms.now();
            }
        }
        Ok(())
    }
}

/// None: not what it should be.
fn read(notice: &Notice) -> Option<(Uuid, UserId, Kind, Timestamp)> {
    let at = Timestamp::from_microsecond(notice.at_micros).ok()?;
    Some((notice.id.parse().ok()?, notice.user_id.parse().ok()?, Kind::parse(&notice.kind)?, at))
}

fn is_news(at: Timestamp) -> bool {
    Timestamp::now().duration_since(at) < NEWS
}
