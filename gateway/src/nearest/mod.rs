//! Which region serves a caller: the one asked for, the signed-in user's own, the nearest by address, or the
//! gateway's. The nearest that is well: who asks for nothing is not sent to a region that is down.

mod places;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use common::{Problem, RegionName};
use http::HeaderMap;

pub use places::{Places, Point, Whereabouts};

use crate::app::Gateway;
use crate::config::Config;
use crate::directory::Region;
use crate::identity::Caller;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The caller asked for it with `X-Region`.
    Header,
    /// The signed-in user's own choice.
    User,
    /// By the caller's address.
    Address,
    /// The region of the gateway that was asked.
    Default,
    /// What would have been chosen is not well; this is the nearest that is.
    Fallback,
}

/// What was chosen, and from what.
pub struct Choice<'a> {
    pub region: &'a Region,
    pub reason: Reason,
    pub whereabouts: Whereabouts,
}

/// The database of addresses. None: not configured.
pub fn open_places(config: &Config) -> anyhow::Result<Option<Places>> {
    let path = config.address_database.as_str();
    if path.is_empty() { Ok(None) } else { Places::open(Path::new(path)).map(Some) }
}

/// 422 when the caller asks for a region that there is not.
pub fn choose<'a>(app: &'a Gateway, headers: &HeaderMap, caller: &Caller) -> Result<Choice<'a>, Problem> {
    if let Some(region) = app.directory.pinned(headers)? {
        return Ok(Choice { region, reason: Reason::Header, whereabouts: Whereabouts::default() });
    }
    let own_choice = caller.region.as_ref().and_then(|name| app.directory.named(name.as_str()));
    if let Some(region) = own_choice.filter(|region| region.is_healthy()) {
        return Ok(Choice { region, reason: Reason::User, whereabouts: Whereabouts::default() });
    }
    let whereabouts = find(app, caller.origin.client);
    let near = whereabouts.point.and_then(|point| nearest_to(app.directory.all(), point));
    let (region, reason) = match near {
        Some(region) => (region, Reason::Address),
        None => (app.directory.own(), Reason::Default),
    };
    if region.is_healthy() {
        return Ok(Choice { region, reason, whereabouts });
    }
    let next = fallback(app, region, whereabouts.point);
    let reason = if next.name == region.name { reason } else { Reason::Fallback };
    Ok(Choice { region: next, reason, whereabouts })
}

fn find(app: &Gateway, address: IpAddr) -> Whereabouts {
    app.places.as_ref().map(|places| places.find(address)).unwrap_or_default()
}

/// Of the regions whose place is known, well or not.
fn nearest_to(regions: &[Region], point: Point) -> Option<&Region> {
    let placed = regions.iter().filter_map(|region| Some((region.place?.distance_km(point), region)));
    placed.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, region)| region)
}

/// The nearest that is well: to the caller where both places are known, else to this gateway by round trip.
/// None is well: what was wanted, whose error will tell.
fn fallback<'a>(app: &'a Gateway, wanted: &'a Region, caller: Option<Point>) -> &'a Region {
    let well = app.directory.all().iter().filter(|region| region.is_healthy());
    let far = |region: &Region| match (caller, region.place) {
        (Some(caller), Some(place)) => place.distance_km(caller),
        // A millisecond of light in glass, there and back, is about a hundred kilometres.
        _ => region.round_trip().map_or(f64::MAX, |rtt| rtt.as_secs_f64() * 100_000.0),
    };
    well.min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(wanted)
}

/// The region to read a show's copy from: its owner, unless another that keeps one is nearer by round trip
/// and well, or the owner is not well. `avoid` has just failed.
pub fn nearest_copy<'a>(
    app: &'a Gateway,
    owner: &'a Region,
    copies: &[RegionName],
    avoid: Option<&RegionName>,
) -> &'a Region {
    let worth = Duration::from_millis(app.upstream.copy_worth_ms);
    let reach = |region: &Region| match region.name == app.directory.own().name {
        true => Some(Duration::ZERO),
        false => region.round_trip(),
    };
    let is_well = |region: &Region| region.is_healthy() && region.is_up() && Some(&region.name) != avoid;
    let copies = copies.iter().filter_map(|name| app.directory.named(name.as_str()));
    let well = copies.filter(|region| region.name != owner.name && is_well(region));
    let nearest = well.filter_map(|region| Some((reach(region)?, region))).min_by_key(|(reach, _)| *reach);
    match (nearest, reach(owner).filter(|_| is_well(owner))) {
        (None, _) => owner,
        (Some((_, region)), None) => region,
        (Some((reach, region)), Some(to_owner)) => {
            if reach * 2 < to_owner && to_owner - reach >= worth {
                region
            } else {
                owner
            }
        }
    }
}
