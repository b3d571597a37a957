//! Where a request belongs: from the routing table, the ids in it, and what the registry tells.

use axum::extract::RawPathParams;
use common::{RegionName, ShowId};
use http::Uri;

use crate::app::Gateway;
use crate::directory::{Region, Upstream};
use crate::routes::Target;

/// The place of one request; it may be corrected on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Global,
    /// A region by name: pinned, the gateway's own, or the home of a cinema or hall.
    Region(RegionName),
    /// Wherever the show's owner is at the moment of asking.
    Show(ShowId),
}

impl Place {
    /// None: the target is the gateway itself.
    pub fn of(
        gateway: &Gateway,
        target: Target,
        params: &RawPathParams,
        uri: &Uri,
        pinned: Option<&Region>,
    ) -> Option<Self> {
        let fallback = || Self::Region(pinned.unwrap_or_else(|| gateway.directory.own()).name.clone());
        let id = params.iter().find(|(name, _)| *name == "id").map(|(_, value)| bare(value));
        Some(match target {
            Target::Gateway => return None,
            Target::Global => Self::Global,
            Target::Region => fallback(),
            Target::Home => {
                let tag = match id {
                    Some(id) => common::home_tag_in(id),
                    None => home_in_query(uri),
                };
                let home = tag.and_then(|tag| gateway.directory.by_tag(tag));
                home.map_or_else(fallback, |home| Self::Region(home.name.clone()))
            }
            // An id that is none names nothing; any region can say so.
            Target::Show => id.and_then(common::show_in).map_or_else(fallback, Self::Show),
        })
    }

    /// The service to ask now.
    pub fn upstream<'a>(&self, gateway: &'a Gateway) -> &'a Upstream {
        let directory = &gateway.directory;
        let region = match self {
            Self::Global => return &directory.global,
            Self::Region(name) => directory.named(name.as_str()),
            Self::Show(show) => gateway
                .ownership
                .owner(*show)
                .and_then(|owner| directory.named(owner.as_str()))
                .or_else(|| directory.by_tag(show.home_tag())),
        };
        &region.unwrap_or_else(|| directory.own()).upstream
    }
}

/// `tkt_….svg` is the ticket `tkt_…`.
fn bare(segment: &str) -> &str {
    segment.split('.').next().unwrap_or(segment)
}

fn home_in_query(uri: &Uri) -> Option<[u8; 2]> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .filter(|(name, _)| name == "cinema_id" || name == "hall_id")
        .find_map(|(_, value)| common::home_tag_in(&value))
}
