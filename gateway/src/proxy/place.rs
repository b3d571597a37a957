//! Where a request belongs: from the routing table, the ids in it, and what the registry tells.

use std::sync::Arc;

use common::{RegionName, ShowId};
use http::Uri;

use crate::app::Gateway;
use crate::directory::{Region, Upstream};
use crate::nearest::nearest_copy;
use crate::routes::Target;

/// The place of one request; it may be corrected on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Global,
    /// A region by name: the caller's, or the home of a cinema or hall.
    Region(RegionName),
    /// Wherever the show's owner is at the moment of asking.
    Show(ShowId),
    /// The nearest region that keeps the show's journal; another, then its owner, when that one will not answer.
    Copy(ShowId),
}

impl Place {
    /// `id` is the one in the path. `callers` is the region of those who ask for nothing in particular; `any_copy`: an answer may be a
    /// little old. None: the target is the gateway itself.
    pub fn of(
        gateway: &Gateway,
        target: Target,
        id: Option<&str>,
        uri: &Uri,
        callers: &Region,
        any_copy: bool,
    ) -> Option<Self> {
        let fallback = || Self::Region(callers.name.clone());
        let id = id.map(bare);
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
            Target::Show => match id.and_then(common::show_in) {
                Some(show) if any_copy => Self::Copy(show),
                Some(show) => Self::Show(show),
                None => fallback(),
            },
        })
    }

    pub fn show(&self) -> Option<ShowId> {
        match self {
            Self::Show(show) | Self::Copy(show) => Some(*show),
            Self::Global | Self::Region(_) => None,
        }
    }

    /// The service to ask now; another process than `avoid` where there is one.
    pub fn upstream(&self, gateway: &Gateway, avoid: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        let directory = &gateway.directory;
        let (region, show) = match self {
            Self::Global => return directory.global.clone(),
            Self::Region(name) => {
                return directory.named(name.as_str()).unwrap_or(directory.own()).upstream.clone();
            }
            Self::Show(show) => (owner(gateway, *show), *show),
            Self::Copy(show) => {
                let copies = gateway.ownership.replicas(*show);
                let failed = avoid.and_then(|upstream| upstream.region.as_ref());
                (nearest_copy(gateway, owner(gateway, *show), &copies, failed), *show)
            }
        };
        directory.process(region, show, avoid)
    }
}

/// As the registry's copy has it; the home for a show it has not heard of.
fn owner(gateway: &Gateway, show: ShowId) -> &Region {
    let directory = &gateway.directory;
    let owner = gateway.ownership.owner(show);
    let owner = owner.and_then(|owner| directory.named(owner.as_str()));
    owner.or_else(|| directory.by_tag(show.home_tag())).unwrap_or(directory.own())
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
