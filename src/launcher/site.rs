//! Where a place's parts stand when that is not this machine's loopback: in a network namespace of their own, at
//! an address that the other places reach. Tests that part regions from one another make these; who makes a
//! namespace keeps it and removes it, the launcher only enters.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::parts::Place;
use super::users::User;

/// Of places, by name; one that is not in it stands on loopback.
pub type Sites = BTreeMap<String, Site>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What the place's parts listen on and are reached at.
    pub host: Ipv4Addr,
    /// The namespace, as a file under `/proc` or `/run/netns`.
    pub network: PathBuf,
}

/// The address of whatever has this name among the ports: `regional-eu.grpc`, `global`, `control` …
pub fn host(sites: &Sites, port_name: &str) -> Ipv4Addr {
    let part = port_name.split('.').next().unwrap_or_default();
    let place = match part.split_once('-') {
        Some((_, place)) => Some(place.to_owned()),
        None if part == "control" => None,
        None => Some(Place::Global.to_string()),
    };
    place.and_then(|place| sites.get(&place)).map_or(Ipv4Addr::LOCALHOST, |site| site.host)
}

impl Site {
    /// The words before a command that runs it here, as `user`: only who enters may still be root.
    pub fn enter(&self, user: Option<&User>) -> Vec<OsString> {
        let mut network = OsString::from("--net=");
        network.push(&self.network);
        let mut words = vec!["nsenter".into(), network];
        if let Some(user) = user {
            words.extend([format!("--setuid={}", user.uid).into(), format!("--setgid={}", user.gid).into()]);
        }
        words.push("--".into());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_at_its_places_address() {
        let site = |last| Site { host: Ipv4Addr::new(10, 0, 0, last), network: "/proc/1/ns/net".into() };
        let sites: Sites = [("eu-west".to_owned(), site(1)), ("global".to_owned(), site(2))].into();
        let last = |name: &str| host(&sites, name).octets()[3];
        assert_eq!(["regional-eu-west.grpc", "raft-eu-west", "postgres-eu-west"].map(last), [1, 1, 1]);
        assert_eq!(["global", "global.grpc", "provider", "postgres-global"].map(last), [2, 2, 2, 2]);
        assert_eq!(host(&sites, "control"), Ipv4Addr::LOCALHOST);
        assert_eq!(host(&sites, "redis-us"), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn who_enters_becomes_the_parts_user() {
        let site = Site { host: Ipv4Addr::LOCALHOST, network: "/proc/7/ns/net".into() };
        let user = User { name: "nobody".into(), uid: 65_534, gid: 65_533 };
        assert_eq!(site.enter(None), ["nsenter", "--net=/proc/7/ns/net", "--"]);
        let words = ["nsenter", "--net=/proc/7/ns/net", "--setuid=65534", "--setgid=65533", "--"];
        assert_eq!(site.enter(Some(&user)), words);
    }
}
