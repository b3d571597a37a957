//! What browsers are told: which pages may call us, and what ours may do.

use common::http::{REGION, REQUEST_ID};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Cors;

/// Preflights are asked again after this.
const MAX_AGE_SECS: u64 = 3600;
/// The pages at `/docs` bring their own scripts and styles, some of them inline.
const POLICY_OF_PAGES: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    script-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";
/// JSON needs nothing.
const POLICY_OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";

/// Outermost. None: other origins' pages may not call us.
pub fn cors(cors: &Cors) -> anyhow::Result<Option<CorsLayer>> {
    if cors.allowed_origins.is_empty() {
        return Ok(None);
    }
    let origins: Result<Vec<HeaderValue>, _> = cors.allowed_origins.iter().map(|o| o.parse()).collect();
    let origins = match cors.allowed_origins.as_slice() {
        [any] if any == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(origins?),
    };
    let name = HeaderName::from_static;
    // No credentials: there are no cookies, a page sends its token itself.
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::CACHE_CONTROL,
            name("idempotency-key"),
            name("last-event-id"),
            name("traceparent"),
            REGION,
            REQUEST_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            name("idempotent-replayed"),
            name("ratelimit"),
            name("ratelimit-policy"),
            name("x-as-of"),
            name("x-show-epoch"),
            REGION,
            REQUEST_ID,
        ])
        .max_age(std::time::Duration::from_secs(MAX_AGE_SECS));
    Ok(Some(layer))
}

/// What every answer carries. `is_page`: it may be one of ours.
pub fn secure(headers: &mut HeaderMap, is_page: bool) {
    let policy = if is_page { POLICY_OF_PAGES } else { POLICY_OF_DATA };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, policy),
        // Ignored on plain connections (RFC 6797 §8.1).
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
