//! Lists of all regions (`GET /v1/reservations`, `GET /v1/payments`): every region is asked at once; who does not
//! answer in time is named, not waited for. What is listed is the regions' to know; here are only times, ids and pages.

mod merge;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::http::{Json, Paging, RequestId};
use common::telemetry::Trace;
use common::{Problem, RegionName};
use futures::future::join_all;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::app::App;
use crate::directory::{Region, Upstream, unknown_region};
use crate::identity::Caller;
use crate::proxy::{self, Outgoing};
use merge::{Cursor, Item, Pages};

const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// New items push old ones to later pages; so many pages are read to find the place again.
const MAX_PAGES: usize = 4;

/// A page of a list of all regions, newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PageOfAllRegions {
    #[schema(value_type = Vec<Object>)]
    pub items: Vec<Box<RawValue>>,
    pub next_cursor: Option<String>,
    /// Regions that did not answer; what they have is not among `items`.
    pub incomplete_regions: Vec<RegionName>,
}

/// What a region answers to one page.
#[derive(Deserialize)]
struct RegionPage {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// How asking one region ended.
enum Outcome {
    Pages(Pages),
    /// The region refuses this caller or this question; its own words.
    Refused(StatusCode, HeaderMap, Bytes),
    Missing,
}

/// The caller's reservations in all regions, newest first. Staff may look one up by its reference.
#[utoipa::path(
    get,
    path = "/v1/reservations",
    tag = "reservations",
    operation_id = "list_reservations",
    params(
        Paging,
        ("region" = Option<RegionName>, Query, description = "Only this region"),
        ("reference" = Option<String>, Query, description = "The reservation with this reference"),
    ),
    responses(
        (status = 200, description = "From every region that answered", body = PageOfAllRegions),
        (status = 403, description = "No region allows this to the caller",
            body = common::problem::ProblemDetails, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn reservations(
    State(app): State<App>,
    asker: Asker,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    gather(&app, asker, "/v1/reservations", &uri, headers).await
}

/// The caller's payments in all regions, newest first; staff see those of their regions' cinemas.
#[utoipa::path(
    get,
    path = "/v1/payments",
    tag = "payments",
    operation_id = "list_payments",
    params(Paging, ("region" = Option<RegionName>, Query, description = "Only this region")),
    responses(
        (status = 200, description = "From every region that answered", body = PageOfAllRegions),
        (status = 403, description = "No region allows this to the caller",
            body = common::problem::ProblemDetails, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn payments(
    State(app): State<App>,
    asker: Asker,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    gather(&app, asker, "/v1/payments", &uri, headers).await
}

/// Who asks, and what the request is called: goes on to the regions.
type Asker = (Extension<Caller>, Extension<RequestId>, Extension<Trace>);

async fn gather(
    app: &App,
    (Extension(caller), Extension(id), Extension(trace)): Asker,
    path: &'static str,
    uri: &Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.directory.pinned(&headers)?;
    let question = match Question::read(app, path, uri) {
        // A stranger learns that he is one before he learns what is wrong with his question.
        Err(_) if caller.user.is_none() && app.authority.ready() => return Err(common::authz::no_token()),
        read => read?,
    };
    let mut headers = proxy::outgoing(headers, &caller.origin, &id, &trace, false);
    // The answers are read here, whole and plain.
    for name in [header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::RANGE] {
        headers.remove(name);
    }
    let asked = question.regions.iter().map(|region| ask(app, region, &question, &headers));
    answer(&question, join_all(asked).await)
}

/// The query, taken apart.
struct Question<'a> {
    path: &'static str,
    regions: Vec<&'a Region>,
    limit: usize,
    cursor: Cursor,
    /// Parameters that go on to the regions as they came.
    passed_on: Vec<(String, String)>,
}

impl<'a> Question<'a> {
    fn read(app: &'a App, path: &'static str, uri: &Uri) -> Result<Self, Problem> {
        let mut paging = Paging::default();
        let mut only = None;
        let mut passed_on = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().map_err(|_| Problem::invalid("limit", "is not a number"))?;
                    paging.limit = Some(limit);
                }
                "cursor" => paging.cursor = Some(value.into_owned()),
                "region" => {
                    only = Some(app.directory.named(&value).ok_or_else(|| unknown_region("region"))?);
                }
                _ => passed_on.push((name.into_owned(), value.into_owned())),
            }
        }
        let limit = usize::try_from(paging.limit()?).unwrap_or(50);
        let cursor = Cursor::read(paging.after()?.as_deref())?;
        let in_scope = app.directory.all().iter().filter(|r| only.is_none_or(|only| only.name == r.name));
        let regions = in_scope.filter(|r| cursor.wants(&r.name)).collect();
        Ok(Self { path, regions, limit, cursor, passed_on })
    }

    fn path_and_query(&self, page: Option<&str>) -> Result<PathAndQuery, Problem> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.passed_on);
        query.append_pair("limit", &self.limit.to_string());
        if let Some(page) = page {
            query.append_pair("cursor", page);
        }
        let text = format!("{}?{}", self.path, query.finish());
        text.parse().map_err(|_| Problem::bad_request("malformed-query", "the query cannot be read"))
    }
}

async fn ask(app: &App, region: &Region, question: &Question<'_>, headers: &HeaderMap) -> Outcome {
    let deadline = Instant::now() + Duration::from_millis(app.upstream.region_deadline_ms);
    let asked = tokio::time::timeout_at(deadline, ask_pages(app, region, question, headers, deadline));
    let why = match asked.await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(why)) => why,
        Err(_) => anyhow::anyhow!("no answer in time"),
    };
    tracing::warn!(target_region = %region.name, why = format!("{why:#}"), "a list goes without a region");
    Outcome::Missing
}

async fn ask_pages(
    app: &App,
    region: &Region,
    question: &Question<'_>,
    headers: &HeaderMap,
    deadline: Instant,
) -> anyhow::Result<Outcome> {
    let after = question.cursor.after.as_ref();
    let mut page = question.cursor.page_of(&region.name);
    for _ in 0..MAX_PAGES {
        let path = question.path_and_query(page.as_deref()).map_err(|p| anyhow::anyhow!(p.detail))?;
        let outgoing = Outgoing::new(Method::GET, path, headers.clone());
        let (status, head, body) = fetch(app, &region.upstream, &outgoing, deadline).await?;
        match status.as_u16() {
            200 => {}
            400 | 401 | 403 | 422 => return Ok(Outcome::Refused(status, head, body)),
            _ => anyhow::bail!("answered {status}"),
        }
        let answer: RegionPage = serde_json::from_slice(&body)?;
        let items: Result<Vec<Item>, _> = answer.items.into_iter().map(Item::read).collect();
        let items: Vec<Item> =
            items?.into_iter().filter(|item| after.is_none_or(|after| item.position < *after)).collect();
        let pages = Pages { region: region.name.clone(), page, items, next: answer.next_cursor };
        if !pages.items.is_empty() || pages.next.is_none() {
            return Ok(Outcome::Pages(pages));
        }
        page = pages.next;
    }
    let pages = Pages { region: region.name.clone(), page: None, items: Vec::new(), next: page };
    Ok(Outcome::Pages(pages))
}

/// One answer, whole. A connection that broke is tried once more; this only reads.
async fn fetch(
    app: &App,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing,
    deadline: Instant,
) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
    let answer = match app.client.send(upstream, outgoing, Body::empty(), deadline).await {
        Err(proxy::Fault::Broken(_)) => app.client.send(upstream, outgoing, Body::empty(), deadline).await?,
        first => first?,
    };
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_PAGE_BYTES).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok((head.status, head.headers, body.to_bytes()))
}

fn answer(question: &Question<'_>, outcomes: Vec<Outcome>) -> Result<Response, Problem> {
    let mut answered = Vec::new();
    let mut missing = Vec::new();
    let mut forbidden = None;
    for (region, outcome) in question.regions.iter().zip(outcomes) {
        match outcome {
            Outcome::Pages(pages) => answered.push(pages),
            Outcome::Missing => missing.push(region.name.clone()),
            // Staff of one region may search there; that another refuses them is no fault of the question.
            Outcome::Refused(StatusCode::FORBIDDEN, head, body) => {
                forbidden = Some(refusal(StatusCode::FORBIDDEN, &head, body));
            }
            Outcome::Refused(status, head, body) => return Ok(refusal(status, &head, body)),
        }
    }
    match forbidden {
        Some(forbidden) if answered.is_empty() => return Ok(forbidden),
        None if answered.is_empty() && !missing.is_empty() => {
            return Err(Problem::unavailable("region-unavailable", "no region answered in time", 2)
                .with("incomplete_regions", missing));
        }
        _ => {}
    }
    let (items, cursor) = question.cursor.merge(answered, missing, question.limit);
    let body = PageOfAllRegions { items, next_cursor: cursor.write(), incomplete_regions: cursor.missing };
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn refusal(status: StatusCode, head: &HeaderMap, body: Bytes) -> Response {
    let mut response = (status, body).into_response();
    for name in [header::CONTENT_TYPE, header::WWW_AUTHENTICATE] {
        if let Some(value) = head.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}
