//! RFC 9457 problem details: the one form in which anything goes wrong in public.
//!
//! `code` is stable and documented; `detail` may change. A 5xx never shows internals: what went wrong
//! inside is logged where the problem is made ([`Problem::internal`]).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's path in the request, such as `seats[0].seat`.
    pub field: String,
    pub message: String,
}

#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub errors: Vec<FieldError>,
    /// Members beyond those of the RFC, as stated where the code is documented.
    pub members: Map<String, Value>,
    pub retry_after_secs: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, code, detail, errors: Vec::new(), members: Map::new(), retry_after_secs: None }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid-token", detail)
    }

    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "your roles do not allow this")
    }

    /// Also for what exists but is not the caller's to know of.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422 with the field at fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::unprocessable("invalid-request", "a field of the request is not valid").field(field, message)
    }

    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 503 with `Retry-After`: nothing was done.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, retry_after_secs: u32) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after_secs = Some(retry_after_secs);
        problem
    }

    /// 503 for a write that may or may not have happened; repeating it under its key settles it.
    pub fn outcome_unknown() -> Self {
        let detail = "whether this was done is not known; repeat it under the same idempotency key";
        Self::unavailable("outcome-unknown", detail, 1)
    }

    /// 500. The cause is logged here, once, and not shown.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "request failed inside");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side")
    }

    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    pub fn with(mut self, member: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("members are plain data");
        self.members.insert(member.to_owned(), value);
        self
    }

    /// The body, with `instance` where the request's id is known.
    pub fn to_json(&self, instance: Option<&str>) -> Value {
        let mut body = self.members.clone();
        body.insert("type".into(), format!("/problems/{}", self.code).into());
        body.insert("title".into(), self.code.replace('-', " ").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("code".into(), self.code.into());
        body.insert("detail".into(), self.detail.clone().into());
        if let Some(instance) = instance {
            body.insert("instance".into(), instance.into());
        }
        if !self.errors.is_empty() {
            body.insert("errors".into(), serde_json::to_value(&self.errors).expect("plain data"));
        }
        Value::Object(body)
    }

    /// The whole answer. Services get `instance` by [`crate::http::request_id`], which calls this again.
    pub fn render(&self, instance: Option<&str>) -> Response {
        let body = self.to_json(instance).to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// The schema of every error answer, for the OpenAPI document.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ProblemDetails {
    /// `/problems/<code>`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable; the thing to switch on.
    #[schema(example = "seats-unavailable")]
    pub code: String,
    pub detail: String,
    /// The request's id.
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}
