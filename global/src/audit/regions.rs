//! What regions bring to the log, over gRPC (`common/proto/audit.proto`): at least once, each line under an id of
//! its own, so that it is here once. Whoever tells proves to be a region's process; a region tells of others' shows
//! too, of which it keeps the journals.

use common::proto::audit::audit_log_server::AuditLog;
use common::proto::audit::{Line, TellReply, TellRequest};
use common::tls::Tls;
use common::{AuditId, RegionName, UserId};
use deadpool_postgres::Pool;
use jiff::Timestamp;
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::db;
use crate::fault::Result;
use crate::metrics::METRICS;
use crate::teller;

const MOST_LINES: usize = 1_000;
const LONGEST_NAME: usize = 200;
const LONGEST_JSON: usize = 1 << 20;

pub struct Server {
    pub pool: Pool,
    /// By which a region proves that it is one.
    pub tls: Tls,
}

#[tonic::async_trait]
impl AuditLog for Server {
    async fn tell(&self, request: Request<TellRequest>) -> std::result::Result<Response<TellReply>, Status> {
        let caller = self.tls.caller(&request);
        let TellRequest { teller, lines } = request.into_inner();
        let teller = teller::teller(&caller, &teller)?;
        if lines.len() > MOST_LINES {
            return Err(Status::invalid_argument("too many lines at once"));
        }
        let (mut told, mut refused) = (Vec::with_capacity(lines.len()), Vec::new());
        for line in lines {
            let id = line.id.clone();
            match Told::read(line) {
                Some(line) => told.push(line),
                None => {
                    tracing::error!(%teller, id, "a region's line is none");
                    refused.push(id);
                }
            }
        }
        let new = write(&self.pool, &told).await.map_err(|fault| {
            // The region tells it again.
            Status::unavailable(fault.into_problem().detail)
        })?;
        let count = |result: &str, lines: usize| {
            METRICS.audit_lines.with_label_values(&[result]).inc_by(lines as u64);
        };
        count("new", new);
        count("known", told.len() - new);
        count("refused", refused.len());
        Ok(Response::new(TellReply { refused }))
    }
}

/// A region's line, sound.
struct Told {
    id: AuditId,
    at: Timestamp,
    actor: Option<UserId>,
    action: String,
    target: String,
    before: Option<Value>,
    after: Option<Value>,
    address: String,
    region: RegionName,
}

impl Told {
    fn read(line: Line) -> Option<Self> {
        let optional = |text: &str| if text.is_empty() { Some(None) } else { json(text).map(Some) };
        let named =
            |text: &String| (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
        let address = line.address.is_empty() || line.address.parse::<std::net::IpAddr>().is_ok();
        if !(named(&line.action) && named(&line.target) && address) {
            return None;
        }
        let actor = if line.actor.is_empty() { None } else { Some(line.actor.parse().ok()?) };
        Some(Self {
            id: line.id.parse().ok()?,
            at: Timestamp::from_microsecond(line.at_micros).ok()?,
            actor,
            before: optional(&line.before)?,
            after: optional(&line.after)?,
            action: line.action,
            target: line.target,
            address: line.address,
            region: line.region.parse().ok()?,
        })
    }
}

/// JSON that Postgres takes: it has no NUL in text.
fn json(text: &str) -> Option<Value> {
    (text.len() <= LONGEST_JSON && !text.contains("\\u0000")).then(|| serde_json::from_str(text).ok())?
}

/// Answers how many were not there before.
async fn write(pool: &Pool, lines: &[Told]) -> Result<usize> {
    let sql = "INSERT INTO audit (id, at, actor, action, target, before, after, address, region)
               SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[],
                                          $6::jsonb[], $7::jsonb[], $8::text[], $9::text[])
               ON CONFLICT (id) DO NOTHING";
    if lines.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = lines.iter().map(|line| line.id.0).collect();
    let at: Vec<_> = lines.iter().map(|line| line.at).collect();
    let actors: Vec<_> = lines.iter().map(|line| line.actor.map(|actor| actor.0)).collect();
    let actions: Vec<_> = lines.iter().map(|line| line.action.as_str()).collect();
    let targets: Vec<_> = lines.iter().map(|line| line.target.as_str()).collect();
    let before: Vec<_> = lines.iter().map(|line| line.before.as_ref()).collect();
    let after: Vec<_> = lines.iter().map(|line| line.after.as_ref()).collect();
    let addresses: Vec<_> = lines.iter().map(|line| line.address.as_str()).collect();
    let regions: Vec<_> = lines.iter().map(|line| line.region.as_str()).collect();
    let params: &db::Params<'_> =
        &[&ids, &at, &actors, &actions, &targets, &before, &after, &addresses, &regions];
    let client = pool.get().await?;
    let new = db::run(&client, sql, params).await?;
    Ok(usize::try_from(new).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            id: AuditId::new().to_string(),
            at_micros: 1_800_000_000_000_000,
            actor: UserId::new().to_string(),
            action: "show.cancel".into(),
            target: "shw_x".into(),
            before: String::new(),
            after: r#"{"status":"canceled"}"#.into(),
            address: "203.0.113.9".into(),
            region: "eu".into(),
        }
    }

    #[test]
    fn what_the_table_could_not_hold_is_refused_by_itself() {
        assert!(Told::read(line()).is_some());
        assert!(Told::read(Line { actor: String::new(), address: String::new(), ..line() }).is_some());
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in [
            Line { id: "aud_".into(), ..line() },
            Line { at_micros: i64::MAX, ..line() },
            Line { actor: "root".into(), ..line() },
            Line { action: String::new(), ..line() },
            Line { action: "a\0b".into(), ..line() },
            Line { target: long, ..line() },
            Line { before: "{".into(), ..line() },
            Line { after: r#"{"reason":"a\u0000b"}"#.into(), ..line() },
            Line { address: "somewhere".into(), ..line() },
            Line { region: "E U".into(), ..line() },
        ] {
            assert!(Told::read(bad.clone()).is_none(), "{bad:?}");
        }
    }
}
