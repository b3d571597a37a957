//! What every public HTTP surface has alike: extractors that fail as problems, request ids, traces,
//! metrics, and a server that stops gracefully.

mod api;
mod edge;
mod etag;
mod extract;
mod front;
mod server;

pub use api::{documented, guarded, problem};
pub use edge::{
    DEADLINE, Deadline, Edge, MAX_BODY_BYTES, REGION, REQUEST_ID, RequestId, Told, stop_signal, with_edge,
};
pub use etag::{Conditions, tagged};
pub use extract::{
    Json, JsonList, OptionalIdempotencyKey, Path, Query, RequiredIdempotencyKey, all_fields, from_json,
    whole_body,
};
pub use front::Front;
pub use server::{accept, serve, serve_behind};

/// `{"items": [...], "next_cursor": "…" or null}`
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

/// `?limit=` (default 50, at most 200) and `&cursor=`, flattened into a list's query.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Paging {
    /// The page's size, or 422 when it is out of bounds.
    pub fn limit(&self) -> Result<i64, crate::Problem> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=200 => Ok(limit.into()),
            _ => Err(crate::Problem::invalid("limit", "must be between 1 and 200")),
        }
    }

    /// The cursor's own content, or 422.
    pub fn after(&self) -> Result<Option<String>, crate::Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        data_encoding::BASE64URL_NOPAD
            .decode(cursor.as_bytes())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Some)
            .ok_or_else(|| crate::Problem::invalid("cursor", "is not a cursor that this list gave"))
    }
}

impl<T> Page<T> {
    /// A page from `limit + 1` rows: the row beyond the limit only tells that there are more.
    pub fn of(mut items: Vec<T>, limit: i64, position: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = match items.last() {
            Some(last) if more => Some(data_encoding::BASE64URL_NOPAD.encode(position(last).as_bytes())),
            _ => None,
        };
        Self { items, next_cursor }
    }
}
