//! Who owns a show, and its planned moves.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::authz::Authorized;
use common::http::{Json, Path};
use common::problem::ProblemDetails;
use common::{Problem, RegionName, ShowId};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use raft::client::RegistryError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{RegionState, refused, who};
use crate::app::{App, db_failed};
use crate::asking::{SHOW_EPOCH, Whence};
use crate::audit::{Line, Order};
use crate::journal::{Journal, Led};

/// How many changes of the leader are told, the newest first.
const HISTORY: i64 = 50;

/// Who may sell a show.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ownership {
    #[schema(value_type = String)]
    show_id: ShowId,
    #[schema(value_type = String, example = "eu")]
    home: RegionName,
    #[schema(value_type = String, example = "us")]
    owner: RegionName,
    /// Rises with every change of the owner or of the replicas.
    epoch: u64,
    state: OwnershipState,
    /// The regions that keep the show's journal.
    replicas: Vec<Replica>,
    /// The replicas before, while a change of them is not settled.
    #[schema(value_type = Vec<String>)]
    prior: Vec<RegionName>,
    /// Who has led the show's journal, the newest first.
    history: Vec<Reign>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OwnershipState {
    /// The owner sells.
    Led,
    /// Replicas are being changed.
    Changing,
    /// It is changing hands.
    Moving,
}

#[derive(Debug, Serialize, ToSchema)]
struct Replica {
    #[schema(value_type = String)]
    region: RegionName,
    /// Null for a region that the registry has not heard of.
    state: Option<RegionState>,
    /// How far its journal is known to be committed; null where it is not known here.
    position: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Reign {
    epoch: u64,
    /// The number of the process's life.
    session: u64,
    /// Null for a process that is gone.
    #[schema(value_type = Option<String>)]
    region: Option<RegionName>,
    /// Where in the journal it began.
    seq: u64,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMove {
    /// A region that keeps the show's journal and is up.
    #[schema(example = "us")]
    to: String,
    /// Only if the show is still at this epoch.
    if_epoch: Option<u64>,
}

/// A planned move that has begun: requests for the show wait until its new owner leads it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Move {
    #[schema(value_type = String)]
    show_id: ShowId,
    #[schema(value_type = String)]
    from: RegionName,
    #[schema(value_type = String)]
    to: RegionName,
    /// The move is over when `ownership` tells this epoch, or a later one, and `led`.
    epoch: u64,
    #[schema(example = "/v1/shows/shw_…/ownership")]
    ownership: String,
}

/// Who owns a show
///
/// Answered by its owner, which leads the show for it.
#[utoipa::path(
    get, path = "/v1/shows/{id}/ownership", tag = "operators", operation_id = "get_ownership",
    params(("id" = ShowId, Path)),
    responses((status = 200, description = "As the registry knows it now", body = Ownership))
)]
pub async fn ownership(State(app): State<App>, Path(id): Path<ShowId>) -> Result<Response, Problem> {
    let host = app.host_of(id, "show").await?;
    let record = app.registry.get_show(id).await.map_err(refused)?;
    let record = record.ok_or_else(|| Problem::not_found("show"))?;
    let (regions, sessions) = (app.view.regions(), app.view.sessions());
    let position = host.read(|show| show.seq);
    let replica = |name: &RegionName| Replica {
        state: regions.iter().find(|region| region.name == *name).map(|region| region.state.into()),
        position: (name == app.region()).then_some(position),
        region: name.clone(),
    };
    let reign = |Led { ballot, seq, at }: Led| Reign {
        epoch: ballot.epoch,
        session: ballot.session,
        region: sessions.iter().find(|s| s.no == ballot.session).map(|s| s.region.clone()),
        seq,
        since: at,
    };
    let reigns = Journal::new(app.pool.clone()).reigns(id, HISTORY).await.map_err(db_failed)?;
    let state = match () {
        () if host.epoch != record.epoch => OwnershipState::Moving,
        () if !record.prior.is_empty() => OwnershipState::Changing,
        () => OwnershipState::Led,
    };
    let ownership = Ownership {
        show_id: id,
        home: record.home,
        owner: record.owner,
        epoch: record.epoch,
        state,
        replicas: record.replicas.iter().map(replica).collect(),
        prior: record.prior,
        history: reigns.into_iter().map(reign).collect(),
    };
    Ok(with_epoch(Json(ownership).into_response(), record.epoch))
}

/// Move a show to another region
///
/// No reservation is lost and no request fails: those that come meanwhile wait for the new owner. The show stays
/// there until somebody moves it again, or its region drains or is lost. Repeating the call is answered with the
/// same move.
#[utoipa::path(
    post, path = "/v1/shows/{id}/moves", tag = "operators", operation_id = "move_show",
    params(("id" = ShowId, Path)), request_body = NewMove,
    responses(
        (status = 202, description = "It moves; `Location` is where to see when it is over", body = Move),
        (status = 409, description = "`unknown-region`, `region-not-up`, `not-a-replica`; `epoch-passed`, \
                                      `move-under-way`: somebody else moves it",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub async fn start_move(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ShowId>,
    Json(NewMove { to, if_epoch }): Json<NewMove>,
) -> Result<Response, Problem> {
    // Led here, any move before this one is over.
    let host = app.host_of(id, "show").await?;
    let Some(to) = app.regions().iter().find(|region| region.as_str() == to).cloned() else {
        return Err(Problem::conflict("unknown-region", "there is no region of that name; see /v1/regions"));
    };
    let asked = if_epoch.unwrap_or(host.epoch);
    tracing::warn!(show = %id, %to, epoch = asked, by = who(&authorized), "asked to move a show");
    let line = Line::now(app.region(), authorized.user(), whence.place(), "show.move", id.to_string());
    let order =
        Order::begin(&app, line.before(json!({ "owner": app.region(), "epoch": host.epoch }))).await?;
    let moved = app.registry.move_show(id, &to, asked).await;
    order.end(&app, &moved, |record| json!({ "owner": record.owner, "epoch": record.epoch })).await;
    let record = moved.map_err(|error| match error {
        RegistryError::Refused(why) if why.code == "epoch-passed" && if_epoch.is_none() => {
            Problem::conflict("move-under-way", "another move of this show is under way")
        }
        other => refused(other),
    })?;
    app.view.note(record.clone());
    let ownership = format!("/v1/shows/{id}/ownership");
    let epoch = record.epoch;
    let moved = Move {
        show_id: id,
        from: app.region().clone(),
        to: record.owner,
        epoch,
        ownership: ownership.clone(),
    };
    let mut response = (StatusCode::ACCEPTED, Json(moved)).into_response();
    if let Ok(location) = HeaderValue::try_from(ownership) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(with_epoch(response, epoch))
}

fn with_epoch(mut response: Response, epoch: u64) -> Response {
    response.headers_mut().insert(SHOW_EPOCH, epoch.into());
    response
}
