//! What operators see of the platform and steer: who owns a show, moves, drains, the registry's voters.
//!
//! Every region answers for the whole platform, since all of it is the registry's word; only a show's moves and
//! its journal's positions are its owner's. Nothing here is safe to lose or unsafe to repeat: what is so already
//! is answered as it is.

mod cluster;
mod shows;

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::authz::{Authorized, Permission};
use common::http::{Json, Path};
use common::problem::ProblemDetails;
use common::{Problem, RegionName};
use http::StatusCode;
use raft::client::{RegionRecord, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::asking::Whence;
use crate::audit::{Line, Order};

/// How many shows at risk are told by name.
const SHOWS_TOLD: usize = 100;
/// For the registry's news, after it answered.
const NEWS: Duration = Duration::from_secs(2);

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("GET", "/v1/cluster", Permission::Role("cluster", "read")),
    ("POST", "/v1/regions/{name}/drain", Permission::Role("region", "drain")),
    ("POST", "/v1/regions/{name}/undrain", Permission::Role("region", "drain")),
    ("POST", "/v1/regions/{name}/restored", Permission::Role("region", "restore")),
    ("POST", "/v1/regions/{name}/give-up", Permission::Role("region", "give_up")),
    ("GET", "/v1/shows/{id}/ownership", Permission::Role("ownership", "read")),
    ("POST", "/v1/shows/{id}/moves", Permission::Role("show", "move")),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(cluster::cluster))
        .routes(routes!(drain))
        .routes(routes!(undrain))
        .routes(routes!(restored))
        .routes(routes!(give_up))
        .routes(routes!(shows::ownership))
        .routes(routes!(shows::start_move))
}

/// A region, as the registry decides about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegionView {
    #[schema(value_type = String, example = "eu")]
    name: RegionName,
    state: RegionState,
    /// Of its Postgres; rises whenever that is found, or declared, to have gone back in time.
    incarnation: u64,
    /// It was down and was given up: no show counts on it until it is up again.
    given_up: bool,
    /// Shows that it owns, as this region last heard.
    shows: usize,
    /// Shows whose home it is and that another region owns; they come back while it is up, a few a second.
    shows_elsewhere: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegionState {
    Up,
    /// Its shows move to others, and no new ones to it.
    Draining,
    /// None of its processes could be heard to write to its Postgres: its shows went to others.
    Down,
}

impl From<raft::client::RegionState> for RegionState {
    fn from(state: raft::client::RegionState) -> Self {
        match state {
            raft::client::RegionState::Up => Self::Up,
            raft::client::RegionState::Draining => Self::Draining,
            raft::client::RegionState::Down => Self::Down,
        }
    }
}

impl RegionView {
    fn of(app: &App, region: &RegionRecord) -> Self {
        let counts = app.view.counts().get(&region.name).copied().unwrap_or_default();
        Self {
            name: region.name.clone(),
            state: region.state.into(),
            incarnation: region.incarnation,
            given_up: region.given_up,
            shows: counts.owned,
            shows_elsewhere: counts.elsewhere,
        }
    }
}

/// Move every show away from a region
///
/// Its shows move to their other regions, so many a second, without a failed request; new ones are not moved to
/// it. It stays so until `undrain`, also when the region goes down meanwhile. `GET /v1/cluster` tells how many
/// shows are left.
#[utoipa::path(
    post, path = "/v1/regions/{name}/drain", tag = "operators", operation_id = "drain_region",
    params(("name" = String, Path)),
    responses(
        (status = 202, description = "It drains", body = RegionView),
        (status = 409, description = "`last-region`: no other region is up; `region-not-up`: it is down",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn drain(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    tracing::warn!(region = %name, by = who(&authorized), "asked to drain");
    let order = begin(&app, &authorized, &whence, "region.drain", &name).await?;
    let drained = app.registry.drain(&name).await;
    order.end(&app, &drained, audited).await;
    let region = drained.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(RegionView::of(&app, &region))).into_response())
}

/// Let shows come to a region again
///
/// Those that are at home there come back by and by, except those that were moved elsewhere by hand.
#[utoipa::path(
    post, path = "/v1/regions/{name}/undrain", tag = "operators", operation_id = "undrain_region",
    params(("name" = String, Path)),
    responses(
        (status = 202, description = "It takes shows again", body = RegionView),
        (status = 409, description = "`region-not-up`: it is down",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn undrain(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    tracing::warn!(region = %name, by = who(&authorized), "asked to undrain");
    let order = begin(&app, &authorized, &whence, "region.undrain", &name).await?;
    let undrained = app.registry.undrain(&name).await;
    order.end(&app, &undrained, audited).await;
    let region = undrained.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(RegionView::of(&app, &region))).into_response())
}

/// Declare that a region's Postgres was restored from a backup
///
/// It may have forgotten entries and promises: its processes open new sessions, every show that it ever kept gets
/// a new epoch, and it takes part in each again only when the other regions have told what it lacks.
#[utoipa::path(
    post, path = "/v1/regions/{name}/restored", tag = "operators", operation_id = "declare_region_restored",
    params(("name" = String, Path)),
    responses((status = 202, description = "Its journals are in recovery", body = RegionView))
)]
async fn restored(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    let record = app.view.regions().into_iter().find(|region| region.name == name);
    let incarnation = record.ok_or_else(|| Problem::not_found("region"))?.incarnation;
    tracing::warn!(region = %name, by = who(&authorized), incarnation, "its store was declared restored");
    let order = begin(&app, &authorized, &whence, "region.restored", &name).await?;
    let declared = app.registry.store_lost(&name, incarnation).await;
    order.end(&app, &declared, audited).await;
    let region = declared.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(RegionView::of(&app, &region))).into_response())
}

/// That something may be lost, said by whoever orders it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GiveUp {
    /// For how many shows something acknowledged may be lost: as many as the refusal without it tells, or more.
    #[serde(default)]
    at_risk: u64,
}

/// What giving a region up has come to.
#[derive(Debug, Serialize, ToSchema)]
struct GivenUp {
    #[serde(flatten)]
    region: RegionView,
    /// Shows of which something acknowledged may be lost.
    at_risk: u64,
}

/// Go on without a region that is down
///
/// For shows of which too few regions are left: it is taken out of every show's replicas, so that the others can be a
/// majority again. What only lost regions knew of is lost with them, even if one of them comes back: it then takes
/// over what the others have. It takes part again, a show at a time, once it is up. Make sure that it is off: what it
/// sells meanwhile counts for nothing.
#[utoipa::path(
    post, path = "/v1/regions/{name}/give-up", tag = "operators", operation_id = "give_up_region",
    params(("name" = String, Path)), request_body = GiveUp,
    responses(
        (status = 202, description = "No show counts on it any more", body = GivenUp),
        (status = 409, description = "`region-not-down`; `shows-at-risk`: of `at_risk` shows, the first of which are \
                                      in `shows`, something acknowledged may be lost, and the request did not say so",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn give_up(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(name): Path<String>,
    Json(said): Json<GiveUp>,
) -> Result<Response, Problem> {
    let name = known(&app, &name)?;
    tracing::warn!(region = %name, by = who(&authorized), at_risk = said.at_risk, "asked to go on without a region");
    let order = begin(&app, &authorized, &whence, "region.give_up", &name).await?;
    let given_up = app.registry.give_up(&name, said.at_risk).await;
    let told = |(region, at_risk): &(RegionRecord, u64)| json!({ "state": RegionState::from(region.state), "incarnation": region.incarnation, "at_risk": at_risk });
    order.end(&app, &given_up, told).await;
    let (region, at_risk) = match given_up {
        Err(RegistryError::Refused(refused)) if refused.code == "shows-at-risk" => {
            return Err(at_risk(&app, &name, said.at_risk, refused.reason).await);
        }
        given_up => given_up.map_err(refused)?,
    };
    let given_up = GivenUp { region: RegionView::of(&app, &region), at_risk };
    Ok((StatusCode::ACCEPTED, Json(given_up)).into_response())
}

/// That more may be lost than was said, with the shows, once the registry's news has come here.
async fn at_risk(app: &App, name: &RegionName, said: u64, why: String) -> Problem {
    let mut changes = app.view.changes();
    let known = async {
        loop {
            changes.mark_unchanged();
            let known = app.view.at_risk_without(name, SHOWS_TOLD);
            if known.1 > said || changes.changed().await.is_err() {
                return known;
            }
        }
    };
    let problem = Problem::conflict("shows-at-risk", why);
    match timeout(NEWS, known).await {
        Ok((shows, at_risk)) => problem.with("at_risk", at_risk).with("shows", shows),
        Err(_) => problem,
    }
}

/// A region of the platform; 404 for any other.
fn known(app: &App, name: &str) -> Result<RegionName, Problem> {
    let found = app.regions().iter().find(|region| region.as_str() == name).cloned();
    found.ok_or_else(|| Problem::not_found("region"))
}

fn who(authorized: &Authorized) -> String {
    authorized.user().map_or_else(|| "nobody".to_owned(), |user| user.to_string())
}

/// Writes an order about a region down for the audit log, before it is given.
async fn begin(
    app: &App,
    authorized: &Authorized,
    whence: &Whence,
    action: &'static str,
    name: &RegionName,
) -> Result<Order, Problem> {
    let line = Line::now(app.region(), authorized.user(), whence.place(), action, name.to_string());
    let record = app.view.regions().into_iter().find(|region| region.name == *name);
    let line = match record {
        Some(record) => line.before(audited(&record)),
        None => line,
    };
    Order::begin(app, line).await
}

/// What the audit log is told of a region.
fn audited(region: &RegionRecord) -> serde_json::Value {
    json!({ "state": RegionState::from(region.state), "incarnation": region.incarnation })
}

/// 409 with the registry's own code, or 503 where it did not answer.
fn refused(error: RegistryError) -> Problem {
    match error {
        RegistryError::Unavailable(why) => {
            tracing::warn!(why, "the registry does not answer an operator");
            let detail =
                "the registry does not answer; whether this was done is not known, and it may be repeated";
            Problem::unavailable("registry-unavailable", detail, 2)
        }
        RegistryError::Refused(refused) => {
            let code = match refused.code.as_str() {
                "unknown-region" => "unknown-region",
                "unknown-show" => return Problem::not_found("show"),
                "region-not-up" => "region-not-up",
                "region-not-down" => "region-not-down",
                "not-a-replica" => "not-a-replica",
                "last-region" => "last-region",
                "epoch-passed" => "epoch-passed",
                "change-under-way" => "change-under-way",
                _ => "refused",
            };
            Problem::conflict(code, refused.reason)
        }
    }
}

#[cfg(test)]
mod tests;
