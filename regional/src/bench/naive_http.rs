//! The usual design behind the handlers' own ways: the same edge, token check, permissions, extractors,
//! idempotency key and reply for `POST /v1/shows/{id}/reservations`, but each request is one transaction with
//! `SELECT … FOR UPDATE` through the region's usual number of connections. For measuring only.
//!
//! What it is given for nothing: the show's facts come from memory, and nothing expires.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::authz::{Authority, Authorized, Permission, Permissions};
use common::http::{Edge, Json, Path, RequiredIdempotencyKey, guarded, with_edge};
use common::{Currency, Money, Problem, ReservationId, ShowId, UserId};
use deadpool_postgres::Pool;
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::tables::EVENT;
use crate::app::db_failed;
use crate::config::Config;
use crate::halls::layout::SeatType;
use crate::reservations::requests::{NewReservation, wanted};
use crate::reservations::view::{ReservationView, ReservedSeat, ShowBrief};
use crate::show::ReservationStatus;

const SCHEMA: &str = "
DROP TABLE IF EXISTS ref_http_seats, ref_http_reservations, ref_http_journal;
CREATE TABLE ref_http_seats (show_id uuid NOT NULL, seat text NOT NULL, price bigint NOT NULL DEFAULT 1000,
                             status smallint NOT NULL DEFAULT 0, reservation text,
                             PRIMARY KEY (show_id, seat)) WITH (fillfactor = 70);
CREATE TABLE ref_http_reservations (id text PRIMARY KEY, show_id uuid NOT NULL, customer uuid NOT NULL,
                                    key bytea NOT NULL UNIQUE, seats text[] NOT NULL, total bigint NOT NULL,
                                    created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL);
CREATE TABLE ref_http_journal (id bigserial PRIMARY KEY, show_id uuid NOT NULL, events bytea NOT NULL,
                               at timestamptz NOT NULL DEFAULT now());";

/// Makes the tables in a region's own database, with these shows' seats, all free.
pub async fn prepare_naive_http(url: &str, shows: &[String], seats: &[String]) -> anyhow::Result<()> {
    let shows = shows.iter().map(|show| Ok(show.parse::<ShowId>()?.0)).collect::<anyhow::Result<Vec<_>>>()?;
    let client = migrations::pool(url, 1)?.get().await?;
    client.batch_execute(SCHEMA).await?;
    let fill = "INSERT INTO ref_http_seats (show_id, seat)
                SELECT s, n FROM unnest($1::uuid[]) s, unnest($2::text[]) n";
    client.execute(fill, &[&shows, &seats]).await?;
    client.batch_execute("VACUUM ANALYZE ref_http_seats").await?;
    Ok(())
}

/// Removes them again, and tells how many bookings stood in them.
pub async fn forget_naive_http(url: &str) -> anyhow::Result<i64> {
    let client = migrations::pool(url, 1)?.get().await?;
    let booked = client.query_one("SELECT count(*) FROM ref_http_reservations", &[]).await?.get(0);
    client.batch_execute("DROP TABLE ref_http_seats, ref_http_reservations, ref_http_journal").await?;
    Ok(booked)
}

#[derive(Clone)]
struct Naive(Arc<Inner>);

struct Inner {
    pool: Pool,
    currency: Currency,
    briefs: HashMap<Uuid, ShowBrief>,
}

/// Serves until `stop`; `config` is a regional process's, with another address. The shows are those of the
/// region's read models.
pub async fn serve_naive(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let pool = migrations::pool(config.postgres_url.reveal(), config.postgres_connections)?;
    let authority = Authority::new(config.issuer.clone());
    crate::following::load_last(&pool, &authority).await?;
    let state = Naive(Arc::new(Inner { briefs: briefs(&pool).await?, pool, currency: "EUR".parse()? }));
    let permission = Permission::Role("reservation", "create");
    let table = [("POST", "/v1/shows/{id}/reservations", permission)];
    let permissions = Permissions::new(Some(config.region.clone()), config.regions.clone(), &table);
    let routes = OpenApiRouter::new().routes(routes!(reserve));
    let (router, _) = guarded(routes, authority, permissions).map_err(anyhow::Error::msg)?;
    let edge = Edge::new("naive", Some(&config.region))?;
    let listener = tokio::net::TcpListener::bind(&config.listen).await.context("the HTTP port")?;
    let router = with_edge(router.with_state(state), edge);
    common::http::serve(listener, router, stop, Duration::from_secs(2)).await
}

async fn briefs(pool: &Pool) -> anyhow::Result<HashMap<Uuid, ShowBrief>> {
    let rows = pool.get().await?.query("SELECT id, view FROM shows", &[]).await?;
    let brief = |row: &tokio_postgres::Row| {
        let view: serde_json::Value = row.get(1);
        let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
        Some((
            row.get(0),
            ShowBrief {
                title: text("title"),
                cinema_id: text("cinema_id").parse().ok()?,
                cinema_name: text("cinema_name"),
                hall_name: text("hall_name"),
                starts_at: text("starts_at").parse().ok()?,
                starts_at_local: text("starts_at_local"),
            },
        ))
    };
    Ok(rows.iter().filter_map(brief).collect())
}

#[utoipa::path(
    post, path = "/v1/shows/{id}/reservations", params(("id" = ShowId, Path)),
    responses((status = 201, description = "The seats are held"))
)]
async fn reserve(
    State(naive): State<Naive>,
    authorized: Authorized,
    Path(show): Path<ShowId>,
    RequiredIdempotencyKey(key): RequiredIdempotencyKey,
    Json(body): Json<NewReservation>,
) -> Result<Response, Problem> {
    let seats = wanted(body.seats.as_deref().unwrap_or_default())?;
    let by = authorized.actor()?.user();
    let view = naive.book(show, by, &key, seats).await?;
    let location = HeaderValue::from_str(&format!("/v1/reservations/{}", view.id));
    let location = location.map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

impl Naive {
    async fn book(
        &self,
        show: ShowId,
        by: UserId,
        key: &str,
        seats: Vec<(String, Option<String>)>,
    ) -> Result<ReservationView, Problem> {
        let inner = &self.0;
        let brief = inner.briefs.get(&show.0).cloned().ok_or_else(|| Problem::not_found("show"))?;
        let mut names: Vec<String> = seats.iter().map(|(seat, _)| seat.clone()).collect();
        names.sort();
        let mut client = inner.pool.get().await.map_err(|_| {
            Problem::unavailable("database-unavailable", "this region's database cannot be reached", 1)
        })?;
        let transaction = client.transaction().await.map_err(db_failed)?;
        let lock = "SELECT seat, price, status FROM ref_http_seats
                     WHERE show_id = $1 AND seat = ANY($2) ORDER BY seat FOR UPDATE";
        let lock = transaction.prepare_cached(lock).await.map_err(db_failed)?;
        let rows = transaction.query(&lock, &[&show.0, &names]).await.map_err(db_failed)?;
        if rows.len() != names.len() || rows.iter().any(|row| row.get::<_, i16>("status") != 0) {
            return Err(Problem::conflict("seats-unavailable", "not all of these seats are free")
                .with("seats", &names));
        }
        let prices: Vec<i64> = rows.iter().map(|row| row.get("price")).collect();
        let total: i64 = prices.iter().sum();
        let now = Timestamp::now();
        let id = ReservationId::new(show, now, rand::random());
        let expires_at = now + SignedDuration::from_mins(10);
        let mut digest = Sha256::new();
        digest.update(by.to_string());
        digest.update(key);
        let key = digest.finalize()[..16].to_vec();
        let insert = "INSERT INTO ref_http_reservations (id, show_id, customer, key, seats, total, created_at, expires_at)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key) DO NOTHING";
        let insert = transaction.prepare_cached(insert).await.map_err(db_failed)?;
        let inserted = transaction
            .execute(&insert, &[&id.to_string(), &show.0, &by.0, &key, &names, &total, &now, &expires_at])
            .await
            .map_err(db_failed)?;
        if inserted == 0 {
            return Err(Problem::conflict("key-used", "this key was used before"));
        }
        let take = "UPDATE ref_http_seats SET status = 1, reservation = $3
                     WHERE show_id = $1 AND seat = ANY($2)";
        let take = transaction.prepare_cached(take).await.map_err(db_failed)?;
        transaction.execute(&take, &[&show.0, &names, &id.to_string()]).await.map_err(db_failed)?;
        let journal = "INSERT INTO ref_http_journal (show_id, events) VALUES ($1, $2)";
        let journal = transaction.prepare_cached(journal).await.map_err(db_failed)?;
        transaction.execute(&journal, &[&show.0, &EVENT]).await.map_err(db_failed)?;
        transaction.commit().await.map_err(db_failed)?;
        let money = |amount| Money { amount, currency: inner.currency };
        let reserved = |(seat, price): (String, i64)| ReservedSeat {
            seat,
            kind: SeatType::Standard,
            category: "adult".into(),
            price: money(price),
        };
        Ok(ReservationView {
            id,
            reference: "BENCH".into(),
            show_id: show,
            status: ReservationStatus::Reserved,
            seats: names.into_iter().zip(prices).map(reserved).collect(),
            total: money(total),
            created_at: now,
            expires_at,
            expires_in_seconds: expires_at.duration_since(Timestamp::now()).as_secs(),
            customer_id: Some(by),
            contact_email: None,
            sealed: None,
            payments: Vec::new(),
            tickets: Vec::new(),
            waivers: Vec::new(),
            show: brief,
        })
    }
}
