//! The audit log: who did what, when, from where. A line is written in the transaction of the change it
//! tells of, or brought by the region that made the change ([`regions`]); the table refuses to be changed. What
//! is personal stays out of `before` and `after`.

pub mod regions;

use std::str::FromStr;

use axum::extract::State;
use common::http::{Json, Page, Paging, Query};
use common::{AuditId, Problem, RegionName, UserId};
use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::App;
use crate::db;
use crate::fault::Result;

/// One line to be.
pub struct Entry<'a> {
    /// None: the system itself, or somebody without an account.
    pub actor: Option<UserId>,
    pub action: &'static str,
    pub target: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub address: &'a str,
}

pub async fn write(db: &impl GenericClient, entry: Entry<'_>) -> Result<()> {
    let sql = "INSERT INTO audit (id, actor, action, target, before, after, address)
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let actor = entry.actor.map(|a| a.0);
    let id = AuditId::new().0;
    let params: &db::Params<'_> =
        &[&id, &actor, &entry.action, &entry.target, &entry.before, &entry.after, &entry.address];
    db::run(db, sql, params).await?;
    Ok(())
}

/// One line of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AuditLine {
    pub id: AuditId,
    pub at: Timestamp,
    /// Who did it; `null`: the system itself, or somebody without an account.
    pub actor: Option<UserId>,
    #[schema(example = "user.disable")]
    pub action: String,
    /// What it was done to.
    #[schema(example = "usr_068vjcr4vhq32vj41k4gbf6c5g")]
    pub target: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// From where; empty when not known.
    pub address: String,
    /// Where it was done; `null`: in no region, but for all of them.
    pub region: Option<RegionName>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what this user did.
    pub actor: Option<UserId>,
    /// Only this action.
    pub action: Option<String>,
    /// Only lines since then.
    pub from: Option<Timestamp>,
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// The audit log, newest first.
///
/// A region's lines come within seconds, or when it has been reached again, and stand where their time puts them.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit", params(AuditQuery),
    responses((status = 200, description = "Who did what, when, from where", body = Page<AuditLine>)))]
pub async fn list(State(app): State<App>, Query(query): Query<AuditQuery>) -> Result<Json<Page<AuditLine>>> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let limit = paging.limit()?;
    let before = parse_cursor::<AuditId>(&paging)?.map(|id| id.0);
    let action = match query.action {
        Some(action) => Some(plain("action", action)?),
        None => None,
    };
    let sql = "SELECT id, at, actor, action, target, before, after, address, region FROM audit
               WHERE ($1::uuid IS NULL OR actor = $1) AND ($2::text IS NULL OR action = $2)
                 AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::uuid IS NULL OR id < $4)
               ORDER BY id DESC LIMIT $5";
    let db = app.db().await?;
    let actor = query.actor.map(|a| a.0);
    let rows = db::rows(&db, sql, &[&actor, &action, &query.from, &before, &(limit + 1)]).await?;
    let lines = rows
        .iter()
        .map(|row| AuditLine {
            id: AuditId(row.get("id")),
            at: row.get("at"),
            actor: row.get::<_, Option<_>>("actor").map(UserId),
            action: row.get("action"),
            target: row.get("target"),
            before: row.get("before"),
            after: row.get("after"),
            address: row.get("address"),
            region: row.get::<_, &str>("region").parse().ok(),
        })
        .collect();
    Ok(Json(Page::of(lines, limit, |line| line.id.to_string())))
}

/// The id in a cursor, or 422 for a cursor that no list gave.
pub fn parse_cursor<T: FromStr>(paging: &Paging) -> std::result::Result<Option<T>, Problem> {
    let Some(text) = paging.after()? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Problem::invalid("cursor", "is not a cursor that this list gave"))
}

/// Text that Postgres takes and a person can have typed: 1 to 200 characters, none of them a control.
pub fn plain(field: &str, text: String) -> std::result::Result<String, Problem> {
    if (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(Problem::invalid(field, "must be 1 to 200 characters"))
    }
}
