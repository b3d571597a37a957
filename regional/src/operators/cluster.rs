//! The whole platform at a glance.

use axum::extract::State;
use common::http::Json;
use common::{Problem, RegionName};
use serde::Serialize;
use utoipa::ToSchema;

use super::{RegionView, refused};
use crate::app::App;

/// The registry's voters and the platform's regions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cluster {
    registry: RegistryView,
    regions: Vec<RegionHealth>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RegistryView {
    /// The voter's region; null while there is none.
    leader: Option<String>,
    /// Rises with every election.
    term: u64,
    last_log_index: u64,
    shows: u64,
    members: Vec<Member>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Member {
    region: String,
    url: String,
    /// How many log entries it lacks; null where the leader could not be asked.
    lag: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RegionHealth {
    #[serde(flatten)]
    region: RegionView,
    /// Whether the registry's leader hears that its Postgres takes writes; null where it could not be asked.
    well: Option<bool>,
    /// For how long that has been so without a break, its journals caught up; null while it is not.
    well_for_ms: Option<u64>,
    processes: Vec<Process>,
}

/// One life of one regional process.
#[derive(Debug, Serialize, ToSchema)]
struct Process {
    session: u64,
    /// Where gateways reach it.
    url: String,
    /// Where other regions reach it for replication; empty: nowhere.
    replication_url: String,
}

/// The registry's voters, and every region's state
///
/// `shows` and `processes` are as this region last heard.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "operators", operation_id = "get_cluster",
    responses((status = 200, description = "As the registry's leader tells, where it answers", body = Cluster))
)]
pub async fn cluster(State(app): State<App>) -> Result<Json<Cluster>, Problem> {
    let status = app.registry.leader_status().await.map_err(refused)?;
    let leads = !status.leader.is_empty() && status.leader == status.node;
    let lag = |matched: u64| leads.then(|| status.last_log_index.saturating_sub(matched));
    let members = status.members.iter().map(|member| Member {
        region: member.node.clone(),
        url: member.url.clone(),
        lag: lag(member.matched_index),
    });
    let registry = RegistryView {
        leader: Some(status.leader.clone()).filter(|leader| !leader.is_empty()),
        term: status.term,
        last_log_index: status.last_log_index,
        shows: status.shows,
        members: members.collect(),
    };
    let sessions = app.view.sessions();
    let processes = |name: &RegionName| {
        let of_region = sessions.iter().filter(|session| session.region == *name);
        let process = of_region.map(|session| Process {
            session: session.no,
            url: session.http_url.clone(),
            replication_url: session.grpc_url.clone(),
        });
        process.collect()
    };
    let known = app.view.regions();
    let regions = known.iter().map(|region| {
        let heard = status.heard.iter().find(|heard| heard.region == region.name.as_str());
        RegionHealth {
            well: heard.map(|heard| heard.well).filter(|_| leads),
            well_for_ms: heard.and_then(|heard| heard.well_for_ms).filter(|_| leads),
            processes: processes(&region.name),
            region: RegionView::of(&app, region),
        }
    });
    Ok(Json(Cluster { registry, regions: regions.collect() }))
}
