//! `/v1/regions`: what regions there are and which one is the caller's.

use axum::Extension;
use axum::extract::State;
use common::Problem;
use common::RegionName;
use common::http::{Json, Page, Paging, Query};
use http::HeaderMap;
use raft::client::RegionState;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::directory::Region;
use crate::identity::Caller;
use crate::nearest::{Reason, choose};

/// A region, as clients see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RegionItem {
    pub name: RegionName,
    #[schema(example = "Europe")]
    pub display_name: String,
    pub status: RegionStatus,
    /// Where the region's gateway is reached.
    #[schema(example = "https://eu.marquee.example")]
    pub url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegionStatus {
    Up,
    /// Its shows are being moved to other regions.
    Draining,
    Down,
}

/// The caller's region, and why it is that one.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Nearest {
    pub region: RegionName,
    #[schema(example = "https://eu.marquee.example")]
    pub url: String,
    pub reason: Reason,
    /// The country of the caller's address (ISO 3166-1), where that was looked up and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "DE")]
    pub country: Option<String>,
    /// All regions, as this choice saw them.
    pub candidates: Vec<Candidate>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Candidate {
    pub region: RegionName,
    pub status: RegionStatus,
    /// From where the caller's address is, where both places are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 850)]
    pub distance_km: Option<u32>,
    /// From the gateway that was asked to the region and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 31.5)]
    pub round_trip_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParameters {
    limit: Option<u32>,
    cursor: Option<String>,
}

/// The regions, in the operator's order.
#[utoipa::path(
    get,
    path = "/v1/regions",
    tag = "regions",
    operation_id = "list_regions",
    params(Paging),
    responses((status = 200, description = "The regions", body = Page<RegionItem>)),
)]
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(parameters): Query<ListParameters>,
) -> Result<Json<Page<RegionItem>>, Problem> {
    app.directory.pinned(&headers)?;
    let paging = Paging { limit: parameters.limit, cursor: parameters.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let all = app.directory.all();
    let start = match after {
        None => 0,
        Some(name) => all
            .iter()
            .position(|region| region.name.as_str() == name)
            .map(|last| last + 1)
            .ok_or_else(|| Problem::invalid("cursor", "is not a cursor that this list gave"))?,
    };
    let rest = all[start..].iter();
    let items = rest
        .map(|region| RegionItem {
            name: region.name.clone(),
            display_name: region.display_name.clone(),
            status: status(&app, region),
            url: region.gateway_url.clone(),
        })
        .collect();
    Ok(Json(Page::of(items, limit, |last: &RegionItem| last.name.to_string())))
}

/// What the registry has decided holds; else whether the region's service answers this gateway.
fn status(app: &App, region: &Region) -> RegionStatus {
    match app.ownership.state(&region.name) {
        Some(RegionState::Draining) => RegionStatus::Draining,
        Some(RegionState::Down) => RegionStatus::Down,
        _ if region.is_up() => RegionStatus::Up,
        _ => RegionStatus::Down,
    }
}

/// The caller's region.
#[utoipa::path(
    get,
    path = "/v1/regions/nearest",
    tag = "regions",
    operation_id = "nearest_region",
    params(("X-Region" = Option<RegionName>, Header, description = "Asks for this region")),
    responses((status = 200, description = "The caller's region", body = Nearest)),
)]
pub async fn nearest(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<Nearest>, Problem> {
    let choice = choose(&app, &headers, &caller)?;
    let from = choice.whereabouts.point;
    let candidates = app.directory.all().iter().map(|region| Candidate {
        region: region.name.clone(),
        status: status(&app, region),
        distance_km: from.zip(region.place).map(|(caller, place)| place.distance_km(caller) as u32),
        round_trip_ms: region.round_trip().map(|took| (took.as_secs_f64() * 1e5).round() / 100.0),
    });
    Ok(Json(Nearest {
        region: choice.region.name.clone(),
        url: choice.region.gateway_url.clone(),
        reason: choice.reason,
        country: choice.whereabouts.country,
        candidates: candidates.collect(),
    }))
}
