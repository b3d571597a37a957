//! The whole URL table, with each route's permission beside it.

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Json, Router};
use common::authz::Permission::{self, Public, Role, SignedIn};
use common::authz::Permissions;
use common::http::guarded;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::{auth, email, me, password, phone, recover, sessions, token, users};
use crate::app::App;
use crate::movies::{handlers as movies, import};
use crate::policy::handlers as policies;
use crate::{audit, keys};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("POST", "/v1/auth/signup", Public),
    ("POST", "/v1/auth/token", Public),
    ("GET", "/.well-known/jwks.json", Public),
    ("GET", "/v1/auth/verify", SignedIn),
    ("POST", "/v1/auth/logout", SignedIn),
    ("GET", "/v1/auth/sessions", SignedIn),
    ("DELETE", "/v1/auth/sessions/{id}", SignedIn),
    ("DELETE", "/v1/auth/sessions", SignedIn),
    ("PUT", "/v1/auth/password", SignedIn),
    ("POST", "/v1/auth/password/forgot", Public),
    ("POST", "/v1/auth/password/reset", Public),
    ("POST", "/v1/auth/email/verify", Public),
    ("POST", "/v1/auth/email/resend", SignedIn),
    ("GET", "/v1/me", SignedIn),
    ("PATCH", "/v1/me", SignedIn),
    ("DELETE", "/v1/me", SignedIn),
    ("POST", "/v1/me/phone/verify", SignedIn),
    ("POST", "/v1/me/phone/resend", SignedIn),
    ("GET", "/v1/users", Role("user", "read")),
    ("GET", "/v1/users/{id}", Role("user", "read")),
    ("POST", "/v1/users/{id}/disable", Role("user", "disable")),
    ("POST", "/v1/users/{id}/enable", Role("user", "disable")),
    ("PUT", "/v1/users/{id}/roles", Role("user", "roles")),
    ("GET", "/v1/policies", Role("policy", "read")),
    ("POST", "/v1/policies", Role("policy", "write")),
    ("DELETE", "/v1/policies", Role("policy", "write")),
    ("GET", "/v1/audit", Role("audit", "read")),
    ("POST", "/v1/movies", Role("movie", "write")),
    ("POST", "/v1/movies/import", Role("movie", "write")),
    ("PATCH", "/v1/movies/{id}", Role("movie", "write")),
    ("DELETE", "/v1/movies/{id}", Role("movie", "write")),
];

fn documented() -> OpenApiRouter<App> {
    let large = OpenApiRouter::new()
        .routes(routes!(import::import))
        .layer(DefaultBodyLimit::max(import::MAX_IMPORT_BYTES));
    OpenApiRouter::new()
        .routes(routes!(auth::sign_up))
        .routes(routes!(token::create))
        .routes(routes!(auth::verify))
        .routes(routes!(sessions::logout))
        .routes(routes!(sessions::list, sessions::delete_all))
        .routes(routes!(sessions::delete))
        .routes(routes!(password::change))
        .routes(routes!(recover::forgot))
        .routes(routes!(recover::reset))
        .routes(routes!(email::verify))
        .routes(routes!(email::resend))
        .routes(routes!(me::get, me::update, me::delete))
        .routes(routes!(phone::verify))
        .routes(routes!(phone::resend))
        .routes(routes!(users::list))
        .routes(routes!(users::get))
        .routes(routes!(users::disable))
        .routes(routes!(users::enable))
        .routes(routes!(users::set_roles))
        .routes(routes!(policies::list, policies::add, policies::remove))
        .routes(routes!(audit::list))
        .routes(routes!(keys::jwks))
        .routes(routes!(movies::create))
        .routes(routes!(movies::update, movies::delete))
        .merge(large)
}

/// The public API, guarded, and its document at `/openapi.json`.
pub fn router(app: App) -> anyhow::Result<Router> {
    let permissions = Permissions::new(None, app.config.regions.clone(), PERMISSIONS);
    let (router, mut document) =
        guarded(documented(), app.authority.clone(), permissions).map_err(anyhow::Error::msg)?;
    document.info.title = "Marquee: accounts, authority and catalogue".into();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    let document = serde_json::to_value(&document)?;
    Ok(router.with_state(app).route("/openapi.json", get(async move || Json(document))))
}
