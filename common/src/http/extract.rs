//! Extractors whose failures are problem+json with the field at fault.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{FieldError, Problem};

/// A JSON body. 415 without the JSON content type, 413 when too large, 400 `malformed-json`, 422 with the
/// field for an unknown, missing or ill-typed one (types deny unknown fields).
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        from_json(&json_body(request, state).await?).map(Json)
    }
}

/// A JSON array as the body; fails as [`Json`] does, with `[0].field` naming what is wrong.
#[derive(Debug, Clone)]
pub struct JsonList<T>(pub Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonList<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = json_body(request, state).await?;
        if body.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::invalid("body", "must be a JSON array"));
        }
        read_json(&body).map(Self)
    }
}

async fn json_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "send JSON with `content-type: application/json`",
        ));
    }
    whole_body(request, state).await
}

/// The body's bytes: 413 when it is larger than the route takes, 400 when it broke off.
pub async fn whole_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let rejection = rejection.into_response();
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "the body is larger than this call takes",
            ),
            _ => Problem::bad_request("body-incomplete", "the body did not arrive whole"),
        }
    })
}

fn is_json(headers: &http::HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads JSON bytes into a request type, telling syntax (400) from meaning (422).
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would read an array as the struct's fields in order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("body", "must be a JSON object"));
    }
    read_json(body)
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        use serde_json::error::Category;
        let path = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => data_problem(&path, &inner.to_string()),
            Category::Syntax | Category::Eof | Category::Io => malformed(inner),
        }
    })?;
    reader.end().map_err(|e| malformed(&e))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::bad_request(
        "malformed-json",
        format!("the body is not JSON: at line {} column {}", error.line(), error.column()),
    )
}

fn data_problem(path: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    // serde names an unknown or missing field between backticks, and its parent in the path.
    let named = message
        .split('`')
        .nth(1)
        .filter(|_| message.starts_with("unknown field") || message.starts_with("missing field"));
    let field = match (path, named) {
        (".", Some(name)) => name.to_owned(),
        (path, Some(name)) if path.ends_with(name) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (".", None) => "body".to_owned(),
        (path, None) => path.to_owned(),
    };
    Problem::invalid(field, message)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Path parameters. An id of the wrong kind names nothing: 404.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found("resource")),
        }
    }
}

/// The query string. 422 with the parameter for an unknown or ill-typed one.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let reader = serde_urlencoded::Deserializer::new(form_pairs(query));
        serde_path_to_error::deserialize(reader)
            .map(Self)
            .map_err(|error| data_problem(&error.path().to_string(), &error.inner().to_string()))
    }
}

fn form_pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

/// The `Idempotency-Key` header of a call that needs one: 400 `idempotency-key-missing` without it.
#[derive(Debug, Clone)]
pub struct RequiredIdempotencyKey(pub String);

impl<S: Send + Sync> FromRequestParts<S> for RequiredIdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match OptionalIdempotencyKey::from_request_parts(parts, state).await?.0 {
            Some(key) => Ok(Self(key)),
            None => Err(Problem::bad_request(
                "idempotency-key-missing",
                "send an `Idempotency-Key` header, unique to this purchase step, and repeat it on retries",
            )),
        }
    }
}

/// The `Idempotency-Key` header, honoured where it is sent.
#[derive(Debug, Clone)]
pub struct OptionalIdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalIdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        match value.to_str() {
            Ok(key) if (1..=255).contains(&key.trim().len()) => Ok(Self(Some(key.trim().to_owned()))),
            _ => Err(Problem::bad_request(
                "idempotency-key-invalid",
                "an idempotency key is 1 to 255 visible ASCII characters",
            )),
        }
    }
}

/// Several fields at fault at once.
pub fn all_fields(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::unprocessable("invalid-request", "some fields of the request are not valid");
    problem.errors = errors;
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Seat {
        seat: String,
        row: u8,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Body {
        seats: Vec<Seat>,
    }

    fn fault(text: &str) -> (u16, String) {
        let problem = from_json::<Body>(text.as_bytes()).unwrap_err();
        (problem.status.as_u16(), problem.errors.first().map(|e| e.field.clone()).unwrap_or_default())
    }

    #[test]
    fn the_field_at_fault_is_named() {
        assert_eq!(fault("{"), (400, String::new()));
        assert_eq!(fault("{} x"), (422, "seats".into()));
        assert_eq!(fault(r#"{"seats":[]} x"#), (400, String::new()));
        assert_eq!(fault(r#"{"sits":[]}"#), (422, "sits".into()));
        assert_eq!(fault(r#"{"seats":[{"seat":"A1","row":"x"}]}"#), (422, "seats[0].row".into()));
        assert_eq!(fault(r#"{"seats":[{"seat":"A1","row":1,"x":1}]}"#), (422, "seats[0].x".into()));
        assert_eq!(fault(&"[".repeat(10_000)), (422, "body".into()));
    }

    #[test]
    fn a_list_names_its_item() {
        let problem = read_json::<Vec<Seat>>(br#"[{"seat":"A1","row":1},{"seat":"A2"}]"#).unwrap_err();
        assert_eq!(problem.errors[0].field, "[1].row");
    }
}
