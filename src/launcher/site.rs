//! Where a place's parts stand when that is not simply this machine's loopback: in a network namespace of their own,
//! at an address that the other places reach; or on loopback, behind addresses from which somebody forwards. Tests
//! that part regions from one another make these; who makes a namespace keeps it and removes it, the launcher only
//! enters.

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
    /// What the place's parts are reached at.
    pub host: Ipv4Addr,
    /// The namespace that they stand and listen in, as a file under `/proc` or `/run/netns`. None: they listen on
    /// loopback, and whoever made the site forwards to there what [`forwarded`] names, under the same port.
    pub network: Option<PathBuf>,
}

/// The address of whatever has this name among the ports: `regional-eu.grpc`, `global`, `control` …
pub fn host(sites: &Sites, port_name: &str) -> Ipv4Addr {
    let stands = |site: &Site| site.network.is_some().then_some(site.host);
    let named = place(port_name).and_then(|place| sites.get(&place)).and_then(stands);
    named.or_else(|| forwarded(sites, port_name).map(|(_, host)| host)).unwrap_or(Ipv4Addr::LOCALHOST)
}

/// The place and the address of a port that other places connect to, where somebody forwards to it; what only its own
/// place and customers use is reached on loopback.
pub fn forwarded(sites: &Sites, port_name: &str) -> Option<(String, Ipv4Addr)> {
    let (part, port) = port_name.split_once('.').unwrap_or((port_name, ""));
    let service = part.split('-').next().unwrap_or_default();
    let is_between = matches!((service, port), ("regional" | "global", "" | "grpc") | ("raft", ""));
    let place = place(port_name).filter(|_| is_between)?;
    let site = sites.get(&place).filter(|site| site.network.is_none())?;
    Some((place, site.host))
}

/// The place that the port belongs to.
fn place(port_name: &str) -> Option<String> {
    let part = port_name.split('.').next().unwrap_or_default();
    match part.split_once('-') {
        Some((_, place)) => Some(place.to_owned()),
        None if part == "control" => None,
        None => Some(Place::Global.to_string()),
    }
}

impl Site {
    /// The words before a command that runs it here, as `user`: only who enters may still be root.
    pub fn enter(&self, user: Option<&User>) -> Vec<OsString> {
        let Some(namespace) = &self.network else { return Vec::new() };
        let mut network = OsString::from("--net=");
        network.push(namespace);
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
        let network = Some(PathBuf::from("/proc/1/ns/net"));
        let site = |last| Site { host: Ipv4Addr::new(10, 0, 0, last), network: network.clone() };
        let sites: Sites = [("eu-west".to_owned(), site(1)), ("global".to_owned(), site(2))].into();
        let last = |name: &str| host(&sites, name).octets()[3];
        assert_eq!(["regional-eu-west.grpc", "raft-eu-west", "postgres-eu-west"].map(last), [1, 1, 1]);
        assert_eq!(["global", "global.grpc", "provider", "postgres-global"].map(last), [2, 2, 2, 2]);
        assert_eq!(host(&sites, "control"), Ipv4Addr::LOCALHOST);
        assert_eq!(host(&sites, "redis-us"), Ipv4Addr::LOCALHOST);
        assert_eq!(forwarded(&sites, "global.grpc"), None);
    }

    #[test]
    fn what_is_forwarded_are_the_ports_between_places() {
        let site = |last| Site { host: Ipv4Addr::new(127, 77, 0, last), network: None };
        let sites: Sites = [("eu".to_owned(), site(1)), ("global".to_owned(), site(2))].into();
        let last = |name: &str| host(&sites, name).octets()[3];
        assert_eq!(["regional-eu", "regional-eu.grpc", "raft-eu"].map(last), [1, 1, 1]);
        assert_eq!(["global", "global.grpc"].map(last), [2, 2]);
        for own in
            ["regional-eu.ops", "raft-eu.ops", "postgres-eu", "redis-eu", "gateway-eu", "provider", "control"]
        {
            assert_eq!((host(&sites, own), forwarded(&sites, own)), (Ipv4Addr::LOCALHOST, None), "{own}");
        }
        assert_eq!(forwarded(&sites, "raft-eu"), Some(("eu".into(), Ipv4Addr::new(127, 77, 0, 1))));
        assert_eq!(host(&sites, "raft-us"), Ipv4Addr::LOCALHOST);
        assert!(site(1).enter(None).is_empty());
    }

    #[test]
    fn who_enters_becomes_the_parts_user() {
        let site = Site { host: Ipv4Addr::LOCALHOST, network: Some("/proc/7/ns/net".into()) };
        let user = User { name: "nobody".into(), uid: 65_534, gid: 65_533 };
        assert_eq!(site.enter(None), ["nsenter", "--net=/proc/7/ns/net", "--"]);
        let words = ["nsenter", "--net=/proc/7/ns/net", "--setuid=65534", "--setgid=65533", "--"];
        assert_eq!(site.enter(Some(&user)), words);
    }
}
