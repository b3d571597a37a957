//! What a platform is made of: kinds of processes, and where each stands.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use common::RegionName;

/// A kind of process, in the order in which they come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Postgres,
    Redis,
    Provider,
    Raft,
    Global,
    Regional,
    Gateway,
}

impl Service {
    pub const ALL: [Self; 7] = [
        Self::Postgres,
        Self::Redis,
        Self::Provider,
        Self::Raft,
        Self::Global,
        Self::Regional,
        Self::Gateway,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Provider => "provider",
            Self::Raft => "raft",
            Self::Global => "global",
            Self::Regional => "regional",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).with_context(|| {
            format!("there is no service `{text}`; the services are postgres, redis, raft, regional, gateway, global and provider")
        })
    }
}

/// A region, or the one place that belongs to none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Global,
    Region(RegionName),
}

impl Place {
    /// What stands there, in the order in which it comes up.
    pub fn services(&self) -> &'static [Service] {
        match self {
            Self::Global => &[Service::Postgres, Service::Provider, Service::Global],
            Self::Region(_) => {
                &[Service::Postgres, Service::Redis, Service::Raft, Service::Regional, Service::Gateway]
            }
        }
    }

    /// What goes when the whole place is lost. The payment provider is a third party's and stays.
    pub fn own_services(&self) -> impl DoubleEndedIterator<Item = Service> {
        self.services().iter().copied().filter(|s| *s != Service::Provider)
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Global => "global",
            Self::Region(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Place {
    type Err = common::region::BadRegionName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "global" { Ok(Self::Global) } else { text.parse().map(Self::Region) }
    }
}

/// One process of a platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    pub service: Service,
    pub place: Place,
}

impl Part {
    pub fn new(service: Service, place: &Place) -> Self {
        Self { service, place: place.clone() }
    }

    /// Its folder, its log and its ports are called so.
    pub fn name(&self) -> String {
        match (self.service, &self.place) {
            (Service::Global | Service::Provider, _) => self.service.to_string(),
            (service, place) => format!("{service}-{place}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_name_of_its_own() {
        let places = [Place::Global, "eu".parse().unwrap(), "us".parse().unwrap()];
        let names: std::collections::BTreeSet<String> =
            places.iter().flat_map(|p| p.services().iter().map(move |s| Part::new(*s, p).name())).collect();
        assert_eq!(names.len(), 3 + 2 * 5);
        assert!(names.contains("postgres-global") && names.contains("global") && names.contains("raft-eu"));
    }

    #[test]
    fn losing_a_place_leaves_the_provider() {
        assert!(!Place::Global.own_services().any(|s| s == Service::Provider));
        assert!("mysql".parse::<Service>().unwrap_err().to_string().contains("postgres"));
    }
}
