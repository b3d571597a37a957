//! Conditional requests (RFC 9110, section 13): `ETag`, `If-None-Match` → 304, `If-Match` → 412.
//!
//! A tag is `"<version>-<digest>"`: the thing's own version, which `If-Match` compares, and a digest of the
//! whole body, since a body may show more than the thing itself (a film's coming shows), which
//! `If-None-Match` compares too.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Problem;

/// The request's conditions; an extractor that never fails.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    if !headers.contains_key(name) {
        return None;
    }
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The entity tags of a list; a digest holds no comma and no quote, so splitting is enough.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

impl Conditions {
    pub fn of(headers: &HeaderMap) -> Self {
        let joined = |name: HeaderName| joined(headers, &name);
        Self { if_match: joined(header::IF_MATCH), if_none_match: joined(header::IF_NONE_MATCH) }
    }

    /// 200 with the body and its tag, or 304 to whom has it already.
    pub fn answer<T: Serialize>(&self, version: i64, body: &T) -> Response {
        let (tag, body) = render(version, body);
        if self.has(&tag) {
            (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
        } else {
            whole(StatusCode::OK, tag, body)
        }
    }

    /// Whether the caller has what `tag` names: the answer is 304.
    pub fn has(&self, tag: &HeaderValue) -> bool {
        let list = self.if_none_match.as_deref();
        let same = |t: &str| t == "*" || t.strip_prefix("W/").unwrap_or(t).as_bytes() == tag.as_bytes();
        list.is_some_and(|list| tags(list).any(same))
    }

    /// 412 `precondition-failed` when the caller wants to change another version than the present one.
    pub fn require_version(&self, version: i64) -> Result<(), Problem> {
        let Some(list) = self.if_match.as_deref() else { return Ok(()) };
        // Weak tags never match here, by the RFC.
        let of_tag = |tag: &str| tag.strip_prefix('"')?.split(['-', '"']).next()?.parse::<i64>().ok();
        if tags(list).any(|tag| tag == "*" || of_tag(tag) == Some(version)) {
            return Ok(());
        }
        let detail = "it has changed since you read it; read it again";
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail))
    }
}

/// An answer with its tag where nothing is conditional: after a write.
pub fn tagged<T: Serialize>(status: StatusCode, version: i64, body: &T) -> Response {
    let (tag, body) = render(version, body);
    whole(status, tag, body)
}

fn render<T: Serialize>(version: i64, body: &T) -> (HeaderValue, Vec<u8>) {
    let body = serde_json::to_vec(body).expect("bodies are plain data");
    let digest = HEXLOWER.encode(&Sha256::digest(&body)[..12]);
    let tag = HeaderValue::try_from(format!("\"{version}-{digest}\"")).expect("digits and hex are visible");
    (tag, body)
}

fn whole(status: StatusCode, tag: HeaderValue, body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::ETAG, tag), (header::CONTENT_TYPE, json)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none_match(list: &str) -> Conditions {
        Conditions { if_none_match: Some(list.to_owned()), ..Conditions::default() }
    }

    #[test]
    fn who_has_it_gets_304() {
        let first = Conditions::default().answer(3, &"body");
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for list in [tag.clone(), format!("W/{tag}"), format!("\"1-a\", {tag}"), "*".to_owned()] {
            let again = none_match(&list).answer(3, &"body");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{list}");
            assert_eq!(again.headers()[header::ETAG], tag);
        }
        assert_eq!(none_match(&tag).answer(3, &"another").status(), StatusCode::OK);
        assert_eq!(none_match(&tag).answer(4, &"body").status(), StatusCode::OK);
    }

    #[test]
    fn only_the_present_version_may_be_changed() {
        let read = tagged(StatusCode::OK, 3, &"body").headers()[header::ETAG].to_str().unwrap().to_owned();
        let check = |list: &str, version| {
            Conditions { if_match: Some(list.to_owned()), ..Conditions::default() }.require_version(version)
        };
        assert!(Conditions::default().require_version(9).is_ok());
        for list in [read.as_str(), "*", "\"3\"", "\"1-x\",\"3-y\""] {
            assert!(check(list, 3).is_ok(), "{list}");
        }
        for list in ["", "3", "\"4-x\"", "W/\"3-x\"", "\"33\"", "\"\""] {
            assert_eq!(check(list, 3).unwrap_err().status, StatusCode::PRECONDITION_FAILED, "{list}");
        }
    }
}
