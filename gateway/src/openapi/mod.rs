//! The one OpenAPI document: the services' own documents, fetched in the background, and the gateway's.

mod examples;
mod merge;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::Problem;
use data_encoding::HEXLOWER;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::OpenApi;

use crate::app::{App, Gateway};
use crate::directory::Upstream;
use crate::proxy::Outgoing;
use crate::{fanout, regions};

const FRESH_FOR: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const FETCH_DEADLINE: Duration = Duration::from_secs(3);
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// What only the gateway serves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Marquee",
        description = "Cinema tickets, sold in several regions at once. Any region's gateway serves all of \
            it. Errors are `application/problem+json` with a stable `code`; `X-Region` tells who answered.",
    ),
    servers((url = "/")),
    paths(regions::list, regions::nearest, fanout::reservations, fanout::payments, serve),
    components(schemas(common::problem::ProblemDetails, common::problem::FieldError)),
    tags((name = "regions", description = "The regions and the caller's own")),
)]
struct Own;

/// The document as it is served now.
#[derive(Default)]
pub struct Document(ArcSwapOption<Served>);

struct Served {
    body: Bytes,
    etag: HeaderValue,
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "regions",
    operation_id = "openapi_document",
    responses(
        (status = 200, description = "This document", body = Object),
        (status = 304, description = "The caller's copy is current"),
    ),
)]
pub async fn serve(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    app.directory.pinned(&headers)?;
    let served = app.document.0.load_full().ok_or_else(|| {
        Problem::unavailable("document-unavailable", "the services have not told their routes yet", 2)
    })?;
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag == served.etag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], served.body.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, served.etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Fetches and merges for as long as the process lives. The last good document stays when services are away.
pub async fn keep_fresh(app: &Gateway) {
    loop {
        let pause = match refresh(app).await {
            Ok(()) => FRESH_FOR,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "the OpenAPI document cannot be refreshed");
                RETRY_AFTER
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn refresh(app: &Gateway) -> anyhow::Result<()> {
    let regional = &app.directory.own().upstream;
    let (global, regional) =
        futures::future::try_join(fetch(app, &app.directory.global), fetch(app, regional)).await?;
    let merged = merge::merge(serde_json::to_value(Own::openapi())?, global, regional);
    let body = Bytes::from(serde_json::to_vec(&merged)?);
    let etag = format!("\"{}\"", &HEXLOWER.encode(&Sha256::digest(&body))[..32]);
    app.document.0.store(Some(Served { body, etag: etag.parse()? }.into()));
    Ok(())
}

async fn fetch(app: &Gateway, upstream: &Arc<Upstream>) -> anyhow::Result<Value> {
    let outgoing = Outgoing::new(Method::GET, PathAndQuery::from_static("/openapi.json"), HeaderMap::new());
    let deadline = tokio::time::Instant::now() + FETCH_DEADLINE;
    let read = async {
        let answer = app.client.send(upstream, &outgoing, Body::empty(), deadline).await?;
        anyhow::ensure!(answer.status().is_success(), "{} answered {}", upstream.label(), answer.status());
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        Ok(serde_json::from_slice(&body.map_err(|e| anyhow::anyhow!(e))?.to_bytes())?)
    };
    tokio::time::timeout_at(deadline, read).await?
}
