//! The pages that links in mails lead to. They are files; what they do, they do by the API.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};

const ACCOUNT: &str = include_str!("../web/account.html");

/// `/account/verify` and `/account/reset`. The address holds a token, so nothing keeps the page.
pub async fn account() -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Html(ACCOUNT)).into_response()
}
