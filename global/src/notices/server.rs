//! What regions have to tell people, over gRPC (`common/proto/notices.proto`): put into the outbox for whom it concerns.

use common::UserId;
use common::proto::notices::notices_server::Notices;
use common::proto::notices::{Notice, TellReply, TellRequest};
use tonic::{Request, Response, Status};

use super::{Hearer, News, texts};
use crate::accounts::store;
use crate::app::App;
use crate::fault::Result;
use crate::mail::outbox::{self, Channel, ToTell};
use crate::metrics::METRICS;
use crate::teller;

const MOST_AT_ONCE: usize = 1_000;

pub struct Server {
    pub app: App,
    pub tls: common::tls::Tls,
    /// Whether mails, and messages, are sent at all: what nobody will send does not pile up.
    pub mails: bool,
    pub messages: bool,
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
        if self.mails || self.messages {
            self.take(&notices).await.map_err(|fault| Status::unavailable(fault.into_problem().detail))?;
        }
        Ok(Response::new(TellReply {}))
    }
}

impl Server {
    async fn take(&self, notices: &[Notice]) -> Result<()> {
        let mut news = Vec::with_capacity(notices.len());
        for notice in notices {
            match News::read(notice) {
                Some(read) if read.is_new() => news.push(read),
                Some(_) => {}
                None => {
                    METRICS.mails.with_label_values(&["notice", "refused"]).inc();
                    tracing::error!(id = notice.id, kind = notice.kind, "a region's notice is none");
                }
            }
        }
        let users: Vec<UserId> = news.iter().filter_map(News::user).collect();
        let db = self.app.db().await?;
        let hearers = store::hearers(&db, &users).await?;
        let mut rows = Vec::new();
        for news in &news {
            let (address, wants_messages) = match &news.hearer {
                Hearer::Guest(address) => (address.as_str(), false),
                // Looked up when it is sent.
                Hearer::Account(user) => match hearers.get(user) {
                    Some(wants_messages) => ("", *wants_messages),
                    None => continue,
                },
            };
            let (kind, user) = (news.kind, news.user());
            if self.mails {
                let text = texts::mail(news, &self.app.config.mail.link_url);
                rows.push(ToTell { id: news.mail_id(), channel: Channel::Order, kind, user, address, text });
            }
            if self.messages && wants_messages {
                let text = texts::message(news);
                rows.push(ToTell { id: news.id, channel: Channel::Sms, kind, user, address, text });
            }
        }
        if outbox::tell(&db, &rows).await? > 0 {
            self.app.order_mail.now();
            self.app.sms.now();
        }
        Ok(())
    }
}
