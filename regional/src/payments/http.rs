//! The calls about payments and refunds.

use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, Permission};
use common::http::{Json, Page, Paging, Path, Query, RequiredIdempotencyKey};
use common::problem::ProblemDetails;
use common::{Amount, Money, PaymentId, Problem, RefundId, RegionName, ReservationId};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::saga::{self, Stuck};
use super::view::{PaymentView, RefundView};
use super::webhook;
use crate::app::{App, db_failed};
use crate::asking::{Asker, Did, DryRun, Failed, Whence, about, ask, replayed};
use crate::host::Host;
use crate::reservations::list::Place;
use crate::reservations::{list, visible};
use crate::show::{
    Asked, Command, Decision, Event, FirstResult, Group, Method, NewRefund, Owned, Payment, StartPayment,
    WithId, decide,
};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("POST", "/v1/reservations/{id}/payments", Permission::OwnerOr("payment", "cash")),
    ("GET", "/v1/reservations/{id}/payments", Permission::OwnerOr("payment", "read")),
    ("GET", "/v1/payments", Permission::SignedIn),
    ("GET", "/v1/payments/{id}", Permission::OwnerOr("payment", "read")),
    ("POST", "/v1/payments/{id}/refunds", Permission::Role("refund", "create")),
    // The provider proves itself by its signature.
    ("POST", "/v1/webhooks/payments/{provider}", Permission::Public),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(pay, of_reservation))
        .routes(routes!(own))
        .routes(routes!(read))
        .routes(routes!(refund))
        .routes(routes!(webhook::receive))
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    method: Method,
    /// The provider's token for the card or account; none for cash.
    #[schema(max_length = 255, example = "tok_ok")]
    token: Option<String>,
}

/// Pay for a reservation
///
/// The amount is the reservation's total. `completed` makes it paid and issues the tickets; `pending` is
/// settled later, at the latest by the provider's webhook. A retry under the same key never charges twice.
#[utoipa::path(
    post, path = "/v1/reservations/{id}/payments", tag = "payments", operation_id = "create_payment",
    params(("id" = ReservationId, Path), ("Idempotency-Key" = String, Header, description = "unique to this payment; repeat it on retries")),
    request_body = NewPayment,
    responses(
        (status = 201, description = "The payment", body = PaymentView,
         headers(("Location" = String, description = "the payment's path"),
                 ("Idempotent-Replayed" = Option<bool>, description = "`true` when it was answered before"))),
        (status = 402, description = "`payment-declined` with `reason` and `payment_id`; the seats stay held until the deadline",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: cash is taken by staff",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`reservation-expired`, `payment-under-way`, `idempotency-key-in-flight`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn pay(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(id): Path<ReservationId>,
    RequiredIdempotencyKey(key): RequiredIdempotencyKey,
    Json(body): Json<NewPayment>,
) -> Result<Response, Failed> {
    check(&body)?;
    visible(&app, &authorized, id).await?;
    // By role, not by ownership: the drawer is the cinema's.
    if body.method == Method::Cash && !authorized.by_role() {
        return Err(Problem::forbidden().into());
    }
    let payment = PaymentId::new(id.show(), Timestamp::now(), rand::random());
    let command = Command::StartPayment(StartPayment {
        id: payment,
        reservation: id,
        method: body.method,
        token: body.token.clone(),
        chance: rand::random(),
    });
    let asker = Asker::new(&authorized, whence, false);
    let operation = format!("POST /v1/reservations/{id}/payments");
    let asked = asker.asks(command, Some(&key), &operation, &body)?;
    // Should the caller go away, the payment is brought to its end all the same.
    let task = tokio::spawn(async move { carry_out(&app, id, asked).await });
    task.await.map_err(Problem::internal)?
}

fn check(body: &NewPayment) -> Result<(), Problem> {
    let usable =
        |token: &str| (1..=255).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    match (body.method, &body.token) {
        (Method::Cash, None) => Ok(()),
        (Method::Cash, Some(_)) => Err(Problem::invalid("token", "cash has no token")),
        (_, Some(token)) if usable(token) => Ok(()),
        (_, Some(_)) => Err(Problem::invalid("token", "must be 1 to 255 visible ASCII characters")),
        (_, None) => Err(Problem::invalid("token", "is required, but for cash")),
    }
}

async fn carry_out(app: &App, id: ReservationId, asked: Asked) -> Result<Response, Failed> {
    let Did { host, group, repeated } = ask(app, id.show(), asked).await?;
    let payment = group.as_deref().and_then(|group| started(&host, group));
    let payment = payment.ok_or_else(|| Problem::internal("a payment left no event"))?;
    if payment.first().is_some() {
        return Ok(answer(&host, &payment, repeated));
    }
    let Some(_under_way) = app.begin(payment.id) else {
        let detail = "a request with this key is being carried out; wait for its answer";
        return Err(about(&host, Problem::conflict("idempotency-key-in-flight", detail)).into());
    };
    let settled = if repeated {
        // The process that began it is gone: nobody knows how far it came.
        saga::settle(app, &host, &payment).await
    } else {
        saga::charge(app, &host, &payment).await
    };
    match settled {
        Ok(host) => {
            let payment =
                host.read(|show| show.payments.get(&payment.id).map(WithId::to_owned)).unwrap_or(payment);
            Ok(answer(&host, &payment, repeated))
        }
        Err(Stuck::Host(error)) => Err(error.into()),
        Err(Stuck::Provider(error)) => {
            tracing::warn!(payment = %payment.id, %error, "left to the reconciler");
            Ok(answer(&host, &payment, repeated))
        }
    }
}

/// The payment that a group started, as it is now.
fn started(host: &Host, group: &Group) -> Option<Owned<Payment>> {
    let id = group.events.iter().find_map(|event| match event {
        Event::PaymentStarted { payment, .. } => Some(*payment),
        _ => None,
    })?;
    host.read(|show| show.payments.get(&id).map(WithId::to_owned))
}

/// The first result; where there is none yet, what is known now.
fn answer(host: &Host, payment: &Owned<Payment>, repeated: bool) -> Response {
    let first = payment.first().unwrap_or(FirstResult::Pending);
    let view = host.read(|show| PaymentView::first(show, payment.with_id(), &first));
    let response = match first {
        FirstResult::Failed { reason, declined: true } => about(
            host,
            Problem::new(StatusCode::PAYMENT_REQUIRED, "payment-declined", "the payment was declined")
                .with("reason", reason)
                .with("payment_id", payment.id),
        ),
        _ => {
            let location = HeaderValue::from_str(&format!("/v1/payments/{}", payment.id));
            let location = location.expect("ids are visible ASCII");
            about(host, (StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
        }
    };
    if repeated { replayed(response) } else { response }
}

/// List a reservation's payments
#[utoipa::path(
    get, path = "/v1/reservations/{id}/payments", tag = "payments", operation_id = "list_reservation_payments",
    params(("id" = ReservationId, Path)),
    responses((status = 200, description = "All of them, oldest first", body = Page<PaymentView>))
)]
async fn of_reservation(
    State(app): State<App>,
    authorized: Authorized,
    Path(id): Path<ReservationId>,
) -> Result<Response, Problem> {
    let (host, reservation) = visible(&app, &authorized, id).await?;
    let items: Vec<PaymentView> = host.read(|show| {
        let payments = show.payments_of(&reservation);
        payments.map(|payment| PaymentView::of(show, payment)).collect()
    });
    Ok(about(&host, Json(Page { items, next_cursor: None })))
}

/// Read a payment
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments", operation_id = "get_payment",
    params(("id" = PaymentId, Path)),
    responses((status = 200, description = "The payment", body = PaymentView))
)]
async fn read(
    State(app): State<App>,
    authorized: Authorized,
    Path(id): Path<PaymentId>,
) -> Result<Response, Problem> {
    let host = app.host_of(id.show(), "payment").await?;
    let found = host.read(|show| {
        let payment = show.payments.get(&id)?;
        let owner = show.reservation_of(&payment).customer;
        Some((PaymentView::of(show, payment), owner))
    });
    let Some((view, owner)) = found else {
        return Err(host.unless_deposed(Problem::not_found("payment")).await);
    };
    authorized.require_owner(owner, "payment")?;
    Ok(about(&host, Json(view)))
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PaymentListing {
    /// Only this region's.
    region: Option<RegionName>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

// Ids sort as (own, show_id).
const OWN: &str = "
SELECT p.*, s.currency FROM payments p JOIN shows s ON s.id = p.show_id
 WHERE ($1::uuid IS NULL OR p.customer = $1) AND ($2::text[] IS NULL OR s.home = ANY($2) OR p.customer = $3)
   AND ($4::timestamptz IS NULL OR (p.created_at, p.own, p.show_id) < ($4, $5::bytea, $6::uuid))
 ORDER BY p.created_at DESC, p.own DESC, p.show_id DESC LIMIT $7";

/// List payments
///
/// One's own; with a role in a region, all of that region's cinemas. Newest first.
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments", operation_id = "list_payments",
    params(PaymentListing),
    responses((status = 200, description = "A page of payments", body = Page<PaymentView>))
)]
async fn own(
    State(app): State<App>,
    authorized: Authorized,
    Query(query): Query<PaymentListing>,
) -> Result<Json<Page<PaymentView>>, Problem> {
    if let Some(region) = query.region.filter(|region| region != app.region()) {
        return Err(app.elsewhere(region.tag(), "region"));
    }
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let after = list::position::<PaymentId>(after)?.map(|(at, id)| Place::of(at, id.own(), id.show()));
    let me = authorized.actor()?.user().0;
    let homes = list::homes_read(&app, &authorized, "payment");
    let (customer, homes) = if homes.is_empty() { (Some(me), None) } else { (None, Some(homes)) };
    let homes: Option<Vec<&str>> = homes.as_ref().map(|homes| homes.iter().map(RegionName::as_str).collect());
    app.projector.caught_up().await;
    let rows = list::owned(&app, OWN, &[&customer, &homes, &me], limit, after, |_| true).await?;
    let items: Vec<PaymentView> =
        rows.iter().map(PaymentView::stored).collect::<Result<_, _>>().map_err(db_failed)?;
    Ok(Json(Page::of(items, limit, |view| format!("{} {}", view.created_at, view.id))))
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefundRequest {
    /// Absent: all that is left.
    amount: Option<Amount>,
    /// For the books and the customer.
    #[schema(min_length = 1, max_length = 500, example = "the projector failed")]
    reason: String,
}

/// What a refund would do.
#[derive(Debug, Serialize, ToSchema)]
struct RefundQuote {
    payment_id: PaymentId,
    refund: Money,
    /// Of the payment, after it.
    left: Money,
    #[schema(example = true)]
    dry_run: bool,
}

/// Refund a payment
///
/// In whole or in part; ask first with `dry_run=true`, which needs no key. A whole refund before the show frees
/// the seats at once.
#[utoipa::path(
    post, path = "/v1/payments/{id}/refunds", tag = "payments", operation_id = "create_refund",
    params(("id" = PaymentId, Path), DryRun,
           ("Idempotency-Key" = Option<String>, Header, description = "required unless `dry_run=true`: unique to this refund; repeat it on retries")),
    request_body = RefundRequest,
    responses(
        (status = 200, description = "With `dry_run=true`: what would go back", body = RefundQuote),
        (status = 201, description = "The refund", body = RefundView,
         headers(("Idempotent-Replayed" = Option<bool>, description = "`true` when it was answered before"))),
        (status = 409, description = "`refund-exceeds-payment` with `remainder`, `payment-under-way`, `wrong-state`",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn refund(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(payment): Path<PaymentId>,
    Query(dry): Query<DryRun>,
    key: Result<RequiredIdempotencyKey, Problem>,
    Json(body): Json<RefundRequest>,
) -> Result<Response, Failed> {
    let show = payment.show();
    let host = app.host_of(show, "payment").await?;
    let amount = amount(&host, &body)?;
    let id = RefundId::new(show, Timestamp::now(), rand::random());
    let reason = body.reason.trim().to_owned();
    let command = Command::Refund(NewRefund { id, payment, amount, reason });
    if dry.dry_run == Some(true) {
        return match offer(&host, payment, command) {
            Ok(offered) => Ok(offered),
            Err(problem) => Err(about(&host, host.unless_deposed(problem).await).into()),
        };
    }
    let RequiredIdempotencyKey(key) = key?;
    let asker = Asker::new(&authorized, whence, true);
    let operation = format!("POST /v1/payments/{payment}/refunds");
    let asked = asker.asks(command, Some(&key), &operation, &body)?;
    let Did { host, group, repeated } = ask(&app, show, asked).await?;
    let id = group.as_deref().and_then(|group| {
        group.events.iter().find_map(|event| match event {
            Event::RefundStarted { refund, .. } => Some(*refund),
            _ => None,
        })
    });
    let id = id.ok_or_else(|| Problem::internal("a refund left no event"))?;
    if let Err(stuck) = saga::give_back(&app, &host, id).await {
        // It is committed as started; the reconciler carries it on.
        tracing::warn!(refund = %id, %stuck, "a refund is not finished yet");
    }
    let view = host.read(|show| show.refunds.get(&id).map(|refund| RefundView::of(show, refund)));
    let view = view.ok_or_else(|| Problem::internal("a refund is not in its show"))?;
    let response = about(&host, (StatusCode::CREATED, Json(view)));
    Ok(if repeated { replayed(response) } else { response })
}

/// What the refund would do, decided like the refund itself; nothing is appended.
fn offer(host: &Host, payment: PaymentId, command: Command) -> Result<Response, Problem> {
    let asked = Asked { command, by: None, key: None, trace: None, from: None };
    let quote = host.read(|show| match decide(show, &asked, Timestamp::now()) {
        Decision::Do(events) => {
            let amount = events.iter().find_map(|event| match event {
                Event::RefundStarted { amount, .. } => Some(*amount),
                _ => None,
            });
            let amount = amount.ok_or_else(|| Problem::internal("a refund without an amount"))?;
            let left = show.payments.get(&payment).map_or(0, |payment| payment.remainder() - amount);
            let (refund, left) = (show.plan.money(amount), show.plan.money(left));
            Ok(RefundQuote { payment_id: payment, refund, left, dry_run: true })
        }
        Decision::Refuse(refusal) => Err(refusal.into()),
        Decision::Already | Decision::Repeat { .. } => Err(Problem::internal("a refund that is none")),
    })?;
    Ok(about(host, Json(quote)))
}

/// The amount in minor units, in the show's currency.
fn amount(host: &Host, body: &RefundRequest) -> Result<Option<i64>, Problem> {
    if body.reason.trim().is_empty() || body.reason.len() > 500 {
        return Err(Problem::invalid("reason", "must be 1 to 500 characters"));
    }
    let currency = host.read(|show| show.plan.facts.currency);
    let Some(amount) = body.amount else { return Ok(None) };
    let amount = amount.minor(currency);
    let amount = amount
        .ok_or_else(|| Problem::invalid("amount.currency", format!("the payment was in {currency}")))?;
    if (1..=common::money::MAX_AMOUNT).contains(&amount) {
        Ok(Some(amount))
    } else {
        Err(Problem::invalid("amount", "must be a positive number of minor units"))
    }
}
