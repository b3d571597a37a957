//! The pages that links in mails lead to. They are files; what they do, they do by the API.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};

const ACCOUNT: &str = include_str!("../web/account.html");
const TICKETS: &str = include_str!("../web/tickets.html");

/// `/account/verify` and `/account/reset`.
pub async fn account() -> Response {
    page(ACCOUNT)
}

/// `/account/tickets?reservation=`: the tickets of a booking, for who signs in.
pub async fn tickets() -> Response {
    page(TICKETS)
}

/// The address may hold a token, so nothing keeps the page.
fn page(html: &'static str) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Html(html)).into_response()
}
