//! What staff do to a show over HTTP: seats off sale, another time, no show at all.

use axum::extract::State;
use axum::response::Response;
use common::authz::Authorized;
use common::http::{Conditions, Json, OptionalIdempotencyKey, Path};
use common::problem::ProblemDetails;
use common::{Problem, ShowId};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::booking;
use super::create::FURTHEST;
use super::view::{ShowView, ends_at};
use crate::app::App;
use crate::asking::{Asker, Did, Failed, Whence, about, ask, replayed};
use crate::host::Host;
use crate::payments::calls_off;
use crate::show::{ChangeShow, Command};

const MAX_SEATS: usize = 5_000;

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    /// Names of seats, all free.
    #[schema(min_items = 1, max_items = 5000)]
    seats: Vec<String>,
    #[schema(min_length = 1, max_length = 200, example = "broken armrest")]
    reason: String,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LiftedBlock {
    #[schema(min_items = 1, max_items = 5000)]
    seats: Vec<String>,
}

/// The seats that are off sale.
#[derive(Debug, Serialize, ToSchema)]
pub struct Blocks {
    blocks: Vec<Block>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Block {
    #[schema(example = "A1")]
    seat: String,
    reason: String,
}

fn blocks(host: &Host) -> Response {
    let blocks = host.read(|show| {
        let block = |(seat, reason): (&u32, &String)| Block {
            seat: show.plan.place(*seat).name.to_owned(),
            reason: reason.clone(),
        };
        show.blocks.iter().map(block).collect()
    });
    about(host, Json(Blocks { blocks }))
}

fn checked(seats: Vec<String>) -> Result<Vec<String>, Problem> {
    if seats.is_empty() || seats.len() > MAX_SEATS {
        return Err(Problem::invalid("seats", format!("name 1 to {MAX_SEATS} seats")));
    }
    Ok(seats)
}

fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.len() > 200 {
        return Err(Problem::invalid("reason", "must be 1 to 200 characters"));
    }
    Ok(text.to_owned())
}

fn asker(authorized: &Authorized, whence: Whence) -> Asker {
    Asker::new(authorized, whence, true)
}

/// Take seats off sale
///
/// All of them or none; a seat that is held or sold cannot be blocked.
#[utoipa::path(
    post, path = "/v1/shows/{id}/blocks", tag = "shows", operation_id = "block_seats",
    params(("id" = ShowId, Path), ("Idempotency-Key" = Option<String>, Header, description = "honoured where sent")),
    request_body = NewBlock,
    responses(
        (status = 200, description = "All seats that are off sale now", body = Blocks),
        (status = 409, description = "`seats-unavailable` with `seats`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub async fn block(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ShowId>,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    Json(body): Json<NewBlock>,
) -> Result<Response, Failed> {
    let reason = reason(&body.reason)?;
    let seats = checked(body.seats.clone())?;
    let operation = format!("POST /v1/shows/{id}/blocks");
    let command = Command::Block { seats, reason };
    let asked = asker(&authorized, whence).asks(command, key.as_deref(), &operation, &body);
    let Did { host, .. } = ask(&app, id, asked?).await?;
    Ok(blocks(&host))
}

/// Put seats on sale again
#[utoipa::path(
    delete, path = "/v1/shows/{id}/blocks", tag = "shows", operation_id = "unblock_seats",
    params(("id" = ShowId, Path)), request_body = LiftedBlock,
    responses((status = 200, description = "All seats that are off sale still", body = Blocks))
)]
pub async fn unblock(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ShowId>,
    Json(body): Json<LiftedBlock>,
) -> Result<Response, Failed> {
    let seats = checked(body.seats.clone())?;
    let asked = asker(&authorized, whence).asks(Command::Unblock { seats }, None, "", &body);
    let Did { host, .. } = ask(&app, id, asked?).await?;
    Ok(blocks(&host))
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowPatch {
    /// In the future, at most two years ahead; every ticket holder is told.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// `null`: on sale at once.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    on_sale_at: Option<Option<Timestamp>>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Change a show's time or the beginning of its sale
///
/// Until it begins. The hall must be free at the new time.
#[utoipa::path(
    patch, path = "/v1/shows/{id}", tag = "shows", operation_id = "change_show",
    params(("id" = ShowId, Path), ("If-Match" = Option<String>, Header, description = "an `ETag` seen before")),
    request_body = ShowPatch,
    responses(
        (status = 200, description = "The show", body = ShowView),
        (status = 409, description = "`hall-busy`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`: it has changed since",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
pub async fn change(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    conditions: Conditions,
    Path(id): Path<ShowId>,
    Json(body): Json<ShowPatch>,
) -> Result<Response, Failed> {
    let host = app.hosts.get(id).await?;
    let seq = host.read(|show| i64::try_from(show.seq).unwrap_or(i64::MAX));
    check(&host, &body)?;
    conditions.require_version(seq)?;
    if let Some(starts_at) = body.starts_at {
        book_anew(&app, &host, starts_at).await?;
    }
    let command = Command::ChangeShow(ChangeShow { starts_at: body.starts_at, on_sale_at: body.on_sale_at });
    let asked = asker(&authorized, whence).asks(command, None, "", &body);
    let asked = asked?;
    let Did { host, .. } = ask(&app, id, asked).await?;
    keep_one_booking(&app, &host).await;
    let view = host.read(ShowView::of);
    Ok(about(&host, Json(view)))
}

fn check(host: &Host, body: &ShowPatch) -> Result<(), Problem> {
    let now = Timestamp::now();
    let starts_at = body.starts_at.unwrap_or_else(|| host.read(|show| show.starts_at));
    if body.starts_at.is_some_and(|at| at <= now || at.duration_since(now) > FURTHEST) {
        return Err(Problem::invalid("starts_at", "must be in the future, within two years"));
    }
    let on_sale_at = body.on_sale_at.unwrap_or_else(|| host.read(|show| show.on_sale_at));
    if on_sale_at.is_some_and(|at| at >= starts_at) {
        return Err(Problem::invalid("on_sale_at", "must be before the start"));
    }
    Ok(())
}

/// Books the hall for the new time too; of the two bookings one stays, whatever becomes of the change.
async fn book_anew(app: &App, host: &Host, starts_at: Timestamp) -> Result<(), Problem> {
    let (show, hall, ends_at) = host.read(|show| {
        let facts = &show.plan.facts;
        (facts.show, facts.hall, ends_at(facts, starts_at))
    });
    booking::book(app, show, hall, starts_at, ends_at).await
}

async fn keep_one_booking(app: &App, host: &Host) {
    let (show, starts_at) = host.read(|show| (show.plan.facts.show, show.starts_at));
    booking::keep_one(app, show, starts_at).await;
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowCancellation {
    #[schema(min_length = 1, max_length = 200, example = "the projector failed")]
    reason: String,
}

/// Cancel a show
///
/// Nothing is sold from now on; everybody gets everything back. What is not refunded when this answers is
/// carried on in the background, also after a crash half-way.
#[utoipa::path(
    post, path = "/v1/shows/{id}/cancel", tag = "shows", operation_id = "cancel_show",
    params(("id" = ShowId, Path), ("Idempotency-Key" = Option<String>, Header, description = "honoured where sent")),
    request_body = ShowCancellation,
    responses((status = 200, description = "The show, canceled", body = ShowView,
        headers(("Idempotent-Replayed" = Option<bool>, description = "`true` when it was canceled before"))))
)]
pub async fn cancel(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ShowId>,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    Json(body): Json<ShowCancellation>,
) -> Result<Response, Failed> {
    let reason = reason(&body.reason)?;
    let operation = format!("POST /v1/shows/{id}/cancel");
    let asked =
        asker(&authorized, whence).asks(Command::CancelShow { reason }, key.as_deref(), &operation, &body);
    let Did { host, repeated, .. } = ask(&app, id, asked?).await?;
    tokio::spawn(calls_off(app.clone(), id));
    let response = about(&host, Json(host.read(ShowView::of)));
    Ok(if repeated { replayed(response) } else { response })
}
