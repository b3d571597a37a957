//! The calls about tickets, and the door.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::authz::jwt::JwkSet;
use common::authz::{Authorized, Permission};
use common::http::{Json, Path};
use common::problem::ProblemDetails;
use common::{Problem, ReservationId, ShowId, TicketId, UserId};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{pdf, qr};
use crate::app::App;
use crate::asking::{Asker, Failed, Whence, about, replayed};
use crate::host::{Answer, Host};
use crate::refusals::not_a_ticket;
use crate::reservations::view::ShowBrief;
use crate::show::{CheckIn, Command, Reservation, Show, Ticket, TicketStatus};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("GET", "/v1/tickets/keys", Permission::Public),
    ("GET", "/v1/tickets/{id}", Permission::OwnerOr("ticket", "read")),
    ("POST", "/v1/shows/{id}/check-ins", Permission::Role("check_in", "create")),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(keys)).routes(routes!(read)).routes(routes!(check_in))
}

/// Read the keys that tickets are verified with
///
/// A ticket's `token` is a JWT (EdDSA, `typ` `ticket+jwt`, `aud` `marquee-ticket`); its `kid` is here. With
/// these keys a scanner verifies tickets with no network.
#[utoipa::path(
    get, path = "/v1/tickets/keys", tag = "tickets", operation_id = "get_ticket_keys",
    responses((status = 200, description = "RFC 7517", body = JwkSet))
)]
async fn keys(State(app): State<App>) -> Json<JwkSet> {
    Json(app.ticket_keys.public())
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TicketView {
    pub id: TicketId,
    pub reservation_id: ReservationId,
    /// The reservation's, for people.
    #[schema(example = "K7QM2XPD")]
    pub reference: String,
    pub show_id: ShowId,
    #[schema(example = "A1")]
    pub seat: String,
    #[schema(example = "adult")]
    pub category: String,
    pub status: TicketStatus,
    /// What the QR holds.
    pub token: String,
    pub admitted_at: Option<Timestamp>,
    pub show: ShowBrief,
}

/// Read a ticket
///
/// `{id}.svg` and `{id}.png` answer its QR code, `{id}.pdf` a page to print.
#[utoipa::path(
    get, path = "/v1/tickets/{id}", tag = "tickets", operation_id = "get_ticket",
    params(("id" = String, Path, description = "the ticket's id, or with `.svg`, `.png` or `.pdf` behind it", example = "tkt_0.svg")),
    responses((status = 200, description = "The ticket, its QR code, or a page with it", content(
        (TicketView = "application/json"), (String = "image/svg+xml"), (Vec<u8> = "image/png"),
        (Vec<u8> = "application/pdf"))))
)]
async fn read(
    State(app): State<App>,
    authorized: Authorized,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (id, form) = name.split_once('.').map_or((name.as_str(), None), |(id, form)| (id, Some(form)));
    let missing = || Problem::not_found("ticket");
    let id: TicketId = id.parse().map_err(|_| missing())?;
    let host = app.host_of(id.show(), "ticket").await?;
    let found = host.read(|show| view(&app, show, id));
    let Some((view, owner)) = found else { return Err(host.unless_deposed(missing()).await) };
    authorized.require_owner(owner, "ticket")?;
    match form {
        None => Ok(about(&host, Json(view))),
        Some("svg") => {
            let image = qr::svg(&view.token).map_err(Problem::internal)?;
            Ok(about(&host, ([(header::CONTENT_TYPE, "image/svg+xml")], image)))
        }
        Some("png") => {
            let image = qr::png(&view.token).map_err(Problem::internal)?;
            Ok(about(&host, ([(header::CONTENT_TYPE, "image/png")], image)))
        }
        Some("pdf") => {
            let page = pdf::pdf(&view).map_err(Problem::internal)?;
            Ok(about(&host, ([(header::CONTENT_TYPE, "application/pdf")], page)))
        }
        Some(_) => Err(missing()),
    }
}

fn view(app: &App, show: &Show, id: TicketId) -> Option<(TicketView, Option<UserId>)> {
    let (reservation, ticket) = show.ticket(id)?;
    let seat = show.plan.place(ticket.seat).name.to_owned();
    let view = TicketView {
        id,
        reservation_id: reservation.id,
        reference: reservation.reference.to_string(),
        show_id: show.plan.facts.show,
        token: app.ticket_keys.token(id, &seat),
        seat,
        category: category(show, &reservation, &ticket),
        status: ticket.status,
        admitted_at: show.admission(&ticket).map(|admission| admission.at.time()),
        show: ShowBrief::of(show),
    };
    Some((view, reservation.customer))
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Scan {
    /// What the QR held; untrusted.
    #[schema(max_length = 2048)]
    ticket: String,
    /// The scanner's own number for this scan; a repeat answers the same again.
    #[schema(min_length = 1, max_length = 64)]
    nonce: String,
    /// When it happened, from a scanner that was offline.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// Record the admission whatever the ticket's state: somebody is in already.
    force: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Admitted {
    #[schema(example = "admitted")]
    result: &'static str,
    ticket_id: TicketId,
    reservation_id: ReservationId,
    seat: String,
    category: String,
    admitted_at: Option<Timestamp>,
}

/// Admit a ticket
///
/// Exactly once. The ticket is the QR's token; anything else is `not-a-ticket`.
#[utoipa::path(
    post, path = "/v1/shows/{id}/check-ins", tag = "tickets", operation_id = "create_check_in",
    params(("id" = ShowId, Path)), request_body = Scan,
    responses(
        (status = 200, description = "Somebody may come in", body = Admitted,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` when this nonce was answered before"))),
        (status = 409, description = "`already-admitted` with `admitted_at`, `admitted_by` and `admitted_where`; `wrong-show`, `canceled`, `refunded`, `nonce-reused`",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "`not-a-ticket`, or a field is not valid",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn check_in(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(show): Path<ShowId>,
    Json(body): Json<Scan>,
) -> Result<Response, Failed> {
    check(&body)?;
    // Whether there is such a show, and whether it is ours, comes before what is shown at its door.
    let host = app.hosts.get(show).await?;
    let answer = admit(&app, &authorized, whence, show, &body).await;
    app.metrics.check_in(match &answer {
        Ok(_) => "admitted",
        Err(response) if response.status().is_server_error() => "failed",
        Err(_) => "refused",
    });
    answer.map_err(|failed| about(&host, failed).into())
}

fn check(body: &Scan) -> Result<(), Problem> {
    if body.nonce.is_empty() || body.nonce.len() > 64 {
        return Err(Problem::invalid("nonce", "must be 1 to 64 characters"));
    }
    Ok(())
}

async fn admit(
    app: &App,
    authorized: &Authorized,
    whence: Whence,
    show: ShowId,
    body: &Scan,
) -> Result<Response, Failed> {
    let claims = app.ticket_keys.verify(&body.ticket).map_err(|_| not_a_ticket().into_response())?;
    if claims.show != show || claims.sub.show() != show {
        return Err(Problem::conflict("wrong-show", "this ticket is for another show")
            .with("show_id", claims.show)
            .into());
    }
    let command = Command::CheckIn(CheckIn {
        ticket: claims.sub,
        nonce: body.nonce.clone(),
        at: body.at,
        force: body.force.unwrap_or(false),
    });
    let asker = Asker::new(authorized, whence, true);
    let asked = asker.asks(command, None, "", &())?;
    let (host, answer) = app.hosts.ask(show, asked).await?;
    let repeated = match answer {
        Answer::Done { repeated, .. } => repeated,
        Answer::Already => true,
        Answer::Refused { refusal, .. } => return Err(at_the_door(&host, refusal.into()).into()),
    };
    let view = host.read(|show| admitted(show, claims.sub));
    let view = view.ok_or_else(|| Problem::internal("an admitted ticket is not in its show"))?;
    let response = about(&host, (StatusCode::OK, Json(view)));
    Ok(if repeated { replayed(response) } else { response })
}

/// What the ticket's seat was sold as.
fn category(show: &Show, reservation: &Reservation, ticket: &Ticket) -> String {
    reservation
        .category_of(ticket.seat)
        .map(|category| show.category(category).to_owned())
        .unwrap_or_default()
}

fn admitted(show: &Show, id: TicketId) -> Option<Admitted> {
    let (reservation, ticket) = show.ticket(id)?;
    Some(Admitted {
        result: "admitted",
        ticket_id: id,
        reservation_id: reservation.id,
        seat: show.plan.place(ticket.seat).name.to_owned(),
        category: category(show, &reservation, &ticket),
        admitted_at: show.admission(&ticket).map(|admission| admission.at.time()),
    })
}

/// Says where the first one came in: at this show's hall.
fn at_the_door(host: &Host, problem: Problem) -> Response {
    let problem = if problem.code == "already-admitted" {
        let place = host.read(|show| {
            let facts = &show.plan.facts;
            serde_json::json!({ "cinema_id": facts.cinema, "cinema_name": facts.cinema_name,
                                "hall_id": facts.hall, "hall_name": facts.hall_name })
        });
        problem.with("admitted_where", place)
    } else {
        problem
    };
    about(host, problem)
}
