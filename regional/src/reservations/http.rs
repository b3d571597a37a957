//! The calls about one reservation.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, Permission};
use common::http::{Json, OptionalIdempotencyKey, Path, Query, RequiredIdempotencyKey, from_json};
use common::problem::ProblemDetails;
use common::{Money, Problem, RefundId, ReservationId, ShowId};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list;
use super::origin::ClientAddress;
use super::requests::{
    BestSeats, ChangedSeats, NewCancellation, NewReservation, WantedSeat, contact, wanted, wish,
};
use super::view::ReservationView;
use crate::app::App;
use crate::asking::{Asker, Did, DryRun, Failed, Whence, about, ask, replayed};
use crate::host::Host;
use crate::payments::saga;
use crate::payments::view::RefundView;
use crate::show::{
    Cancel, ChangeSeats, Command, Contact, ContactDigest, Event, Group, Owned, Reservation, Reserve, Show,
    WithId, quote,
};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("POST", "/v1/shows/{id}/reservations", Permission::Role("reservation", "create")),
    ("GET", "/v1/shows/{id}/reservations", Permission::Role("reservation", "read")),
    ("GET", "/v1/reservations", Permission::SignedIn),
    ("GET", "/v1/reservations/{id}", Permission::OwnerOr("reservation", "read")),
    // Not `reservation create`: every customer has that, and would pass for staff.
    ("PATCH", "/v1/reservations/{id}", Permission::OwnerOr("reservation", "cancel")),
    ("POST", "/v1/reservations/{id}/cancel", Permission::OwnerOr("reservation", "cancel")),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(reserve, list::of_show))
        .routes(routes!(list::own))
        .routes(routes!(read, change))
        .routes(routes!(cancel))
}

/// Letters and digits that are not mistaken for one another.
const REFERENCE: &[u8; 31] = b"23456789ABCDEFGHJKLMNPQRSTUVWXY";

/// A reference of eight characters: 39 bits, looked up together with the show.
fn reference() -> String {
    (0..8).map(|_| char::from(REFERENCE[rand::random_range(0..REFERENCE.len())])).collect()
}

/// What an idempotency key stands for: the request, with the contact's keyed digest in its place.
#[derive(Serialize)]
struct AskedFor<'a> {
    seats: &'a Option<Vec<WantedSeat>>,
    best: &'a Option<BestSeats>,
    contact: Option<ContactDigest>,
}

/// Reserve seats
///
/// All of them or none. They are held until `expires_at`; pay before.
#[utoipa::path(
    post, path = "/v1/shows/{id}/reservations", tag = "reservations", operation_id = "create_reservation",
    params(("id" = ShowId, Path), ("Idempotency-Key" = String, Header, description = "unique to this wish; repeat it on retries")),
    request_body = NewReservation,
    responses(
        (status = 201, description = "The seats are held", body = ReservationView,
         headers(("Location" = String, description = "the reservation's path"),
                 ("Idempotent-Replayed" = Option<bool>, description = "`true` when it was answered before"))),
        (status = 409, description = "`seats-unavailable` with `seats` (or, of `best`, how many are `free`), `single-seat-gap` and `companion-alone` with `seats`, `seat-limit` and `address-limit` with `limit`, `hold-limit` with `until`, `not-on-sale`",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 421, description = "`not-owner`: the show changed hands and could not be followed",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn reserve(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    ClientAddress(from): ClientAddress,
    Path(show): Path<ShowId>,
    RequiredIdempotencyKey(key): RequiredIdempotencyKey,
    Json(body): Json<NewReservation>,
) -> Result<Response, Failed> {
    let wish = wish(&body)?;
    let address = contact(body.contact_email.as_deref())?;
    let actor = authorized.actor()?;
    let by = actor.user();
    let home = app.home_of(show);
    let by_staff = authorized.may(home.as_ref(), "reservation", "cancel");
    // Staff who name a contact reserve for a customer without an account.
    let customer = (!by_staff || address.is_none()).then_some(by);
    let id = ReservationId::new(show, Timestamp::now(), rand::random());
    let contact = match &address {
        Some(address) => {
            let starts_at = app.hosts.get(show).await?.read(|show| show.plan.facts.starts_at);
            Some(app.contacts.seal(address, id, starts_at, customer.map(|_| actor)).await?)
        }
        None => None,
    };
    let asked_for =
        AskedFor { seats: &body.seats, best: &body.best, contact: contact.as_ref().map(Contact::digest) };
    let command = Command::Reserve(Reserve {
        id,
        reference: reference(),
        customer,
        contact,
        wish,
        // Staff reserve for others: their own address says nothing about the customer.
        origin: from.filter(|_| !by_staff).map(|from| app.origins.of(show, from)),
        by_staff,
    });
    let asker = Asker::new(&authorized, whence, by_staff);
    let operation = format!("POST /v1/shows/{show}/reservations");
    let asked = asker.asks(command, Some(&key), &operation, &asked_for)?;
    let answer = ask(&app, show, asked).await;
    app.metrics.reservation(match &answer {
        Ok(_) => "reserved",
        Err(response) if response.status() == StatusCode::CONFLICT => "refused",
        Err(_) => "failed",
    });
    let Did { host, group, repeated } = answer?;
    let view = group.and_then(|group| host.read(|show| ReservationView::first(show, &group)));
    let view = view.ok_or_else(|| Problem::internal("a reservation left no event"))?;
    let view = app.contacts.revealed(&authorized, view).await;
    let location = HeaderValue::from_str(&format!("/v1/reservations/{}", view.id));
    let location = location.map_err(Problem::internal)?;
    let response = about(&host, (StatusCode::CREATED, [(header::LOCATION, location)], Json(view)));
    Ok(if repeated { replayed(response) } else { response })
}

/// The reservation's show and the reservation itself, if the caller may see it.
pub(crate) async fn visible(
    app: &App,
    authorized: &Authorized,
    id: ReservationId,
) -> Result<(Host, Owned<Reservation>), Problem> {
    let host = app.host_of(id.show(), "reservation").await?;
    let reservation = host.read(|show| show.reservations.get(&id).map(WithId::to_owned));
    let Some(reservation) = reservation else {
        return Err(host.unless_deposed(Problem::not_found("reservation")).await);
    };
    authorized.require_owner(reservation.customer, "reservation")?;
    Ok((host, reservation))
}

/// Read a reservation
#[utoipa::path(
    get, path = "/v1/reservations/{id}", tag = "reservations", operation_id = "get_reservation",
    params(("id" = ReservationId, Path)),
    responses((status = 200, description = "The reservation", body = ReservationView))
)]
async fn read(
    State(app): State<App>,
    authorized: Authorized,
    Path(id): Path<ReservationId>,
) -> Result<Response, Problem> {
    let (host, reservation) = visible(&app, &authorized, id).await?;
    let view = host.read(|show| ReservationView::of(show, reservation.with_id()));
    let view = app.contacts.revealed(&authorized, view).await;
    Ok(about(&host, Json(view)))
}

/// Change the seats of a reservation
///
/// In one step, while it is not paid. The deadline does not move.
#[utoipa::path(
    patch, path = "/v1/reservations/{id}", tag = "reservations", operation_id = "change_reservation",
    params(("id" = ReservationId, Path)), request_body = ChangedSeats,
    responses(
        (status = 200, description = "The reservation with its new seats", body = ReservationView),
        (status = 409, description = "`seats-unavailable`, `single-seat-gap` and `companion-alone` with `seats`, `seat-limit` and `address-limit` with `limit`, `not-on-sale`, `reservation-expired`, `payment-under-way`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ReservationId>,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    Json(body): Json<ChangedSeats>,
) -> Result<Response, Failed> {
    let seats = wanted(&body.seats)?;
    visible(&app, &authorized, id).await?;
    let by_staff = authorized.by_role();
    let command = Command::ChangeSeats(ChangeSeats { reservation: id, seats, by_staff });
    let asker = Asker::new(&authorized, whence, by_staff);
    let operation = format!("PATCH /v1/reservations/{id}");
    let asked = asker.asks(command, key.as_deref(), &operation, &body)?;
    let keyed = asked.key.is_some();
    let Did { host, repeated, .. } = ask(&app, id.show(), asked).await?;
    let response = present(&app, &authorized, &host, id).await?;
    Ok(if repeated && keyed { replayed(response) } else { response })
}

async fn present(
    app: &App,
    authorized: &Authorized,
    host: &Host,
    id: ReservationId,
) -> Result<Response, Problem> {
    let view = host.read(|show| show.reservations.get(&id).map(|r| ReservationView::of(show, r)));
    let view = view.ok_or_else(|| Problem::not_found("reservation"))?;
    let view = app.contacts.revealed(authorized, view).await;
    Ok(about(host, Json(view)))
}

/// A canceled reservation, or what canceling it would bring.
#[derive(Debug, Serialize, ToSchema)]
struct CanceledView {
    #[serde(flatten)]
    reservation: ReservationView,
    /// Money on its way back; none where nothing was paid.
    refund: Option<RefundView>,
    quote: QuoteView,
    dry_run: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct QuoteView {
    refund: Money,
    /// What the cinema keeps.
    fee: Money,
}

/// Cancel a reservation
///
/// All of it or some of its seats, which are free again at once. What goes back follows the refund policy
/// that the show was sold under; ask first with `dry_run=true`.
#[utoipa::path(
    post, path = "/v1/reservations/{id}/cancel", tag = "reservations", operation_id = "cancel_reservation",
    params(("id" = ReservationId, Path), DryRun,
           ("Idempotency-Key" = Option<String>, Header, description = "honoured where sent")),
    request_body = NewCancellation,
    responses(
        (status = 200, description = "The reservation and what goes back", body = CanceledView),
        (status = 409, description = "`refund-window-closed`, `reservation-expired`, `payment-under-way`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn cancel(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ReservationId>,
    Query(dry): Query<DryRun>,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    body: Bytes,
) -> Result<Response, Failed> {
    // A bare POST cancels everything.
    let body: NewCancellation =
        if body.iter().all(u8::is_ascii_whitespace) { NewCancellation::default() } else { from_json(&body)? };
    let (host, reservation) = visible(&app, &authorized, id).await?;
    let by_staff = authorized.by_role();
    let offer = host.read(|show| offer(show, &reservation, &body, by_staff));
    if dry.dry_run == Some(true) {
        let quote = match offer {
            Ok(quote) => quote,
            Err(refusal) => return Err(host.unless_deposed(refusal).await.into()),
        };
        let reservation = host.read(|show| ReservationView::of(show, reservation.with_id()));
        let reservation = app.contacts.revealed(&authorized, reservation).await;
        return Ok(about(&host, Json(CanceledView { reservation, refund: None, quote, dry_run: true })));
    }
    let refund = RefundId::new(id.show(), Timestamp::now(), rand::random());
    let command = Command::Cancel(Cancel { reservation: id, seats: body.seats.clone(), by_staff, refund });
    let asker = Asker::new(&authorized, whence, by_staff);
    let operation = format!("POST /v1/reservations/{id}/cancel");
    let asked = asker.asks(command, key.as_deref(), &operation, &body)?;
    let Did { host, group, repeated } = ask(&app, id.show(), asked).await?;
    let refund = group.as_deref().and_then(started_refund);
    if let Some(refund) = refund
        && let Err(stuck) = saga::give_back(&app, &host, refund).await
    {
        // It is committed as started; the reconciler carries it on.
        tracing::warn!(%refund, %stuck, "a refund is not finished yet");
    }
    let kept = offer.map_or(0, |offer| offer.fee.amount);
    let mut view = canceled(&host, id, refund, kept)?;
    view.reservation = app.contacts.revealed(&authorized, view.reservation).await;
    let response = about(&host, Json(view));
    Ok(if repeated { replayed(response) } else { response })
}

fn started_refund(group: &Group) -> Option<RefundId> {
    group.events.iter().find_map(|event| match event {
        Event::Canceled(cancellation) => cancellation.refund.as_ref().map(|back| back.refund),
        _ => None,
    })
}

fn canceled(
    host: &Host,
    id: ReservationId,
    refund: Option<RefundId>,
    kept: i64,
) -> Result<CanceledView, Problem> {
    let view = host.read(|show| {
        let reservation = ReservationView::of(show, show.reservations.get(&id)?);
        let refund = refund.and_then(|id| show.refunds.get(&id)).map(|r| RefundView::of(show, r));
        let back = refund.as_ref().map_or_else(|| show.plan.money(0), |r| r.amount);
        let quote = QuoteView { refund: back, fee: show.plan.money(if refund.is_some() { kept } else { 0 }) };
        Some(CanceledView { reservation, refund, quote, dry_run: false })
    });
    view.ok_or_else(|| Problem::not_found("reservation"))
}

fn offer(
    show: &Show,
    reservation: &Reservation,
    body: &NewCancellation,
    by_staff: bool,
) -> Result<QuoteView, crate::show::Refusal> {
    let lines = crate::show::chosen(show, reservation, body.seats.as_deref())?;
    let quote = quote(show, reservation, &lines, by_staff, Timestamp::now())?;
    Ok(QuoteView { refund: show.plan.money(quote.refund), fee: show.plan.money(quote.fee) })
}
