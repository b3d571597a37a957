//! Who is calling, as an address. `X-Forwarded-For` is believed only as far as trusted proxies wrote it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An address, or a network in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("neither an address nor a network such as 10.0.0.0/8")]
pub struct BadNetwork;

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| BadNetwork)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| BadNetwork)?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(widest);
        if prefix > widest { Err(BadNetwork) } else { Ok(Self { base, prefix }) }
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (u128::from(base.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.prefix);
        // A shift by the whole width leaves nothing to compare.
        (base ^ address).checked_shr(host_bits).unwrap_or(0) == 0
    }
}

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The nearest address that no trusted proxy has.
    pub client: IpAddr,
    /// What goes on as `X-Forwarded-For`.
    pub forwarded_for: String,
    /// Whether the peer is a trusted proxy, whose other `X-Forwarded-…` are kept.
    pub peer_trusted: bool,
}

/// Reads the chain from its trustworthy end: the peer first, then what each trusted proxy saw.
pub fn origin(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> Origin {
    let peer = peer.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return Origin { client: peer, forwarded_for: peer.to_string(), peer_trusted: false };
    }
    let given: Vec<&str> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect();
    let mut client = peer;
    for hop in given.iter().rev() {
        // Beyond something unreadable nothing can be believed.
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    let forwarded_for = given.into_iter().chain([peer.to_string().as_str()]).collect::<Vec<_>>().join(", ");
    Origin { client, forwarded_for, peer_trusted: true }
}

/// What an address counts as: one household or server may hold a whole IPv6 /64.
pub fn limit_key(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{}/64", std::net::Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, chain: &str, trusted: &[&str]) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, chain.parse().unwrap());
        let trusted: Vec<Network> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        origin(format!("{peer}:1").parse().unwrap(), &headers, &trusted)
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        let origin = from("203.0.113.9", "1.2.3.4", &["10.0.0.0/8"]);
        assert_eq!(origin.client.to_string(), "203.0.113.9");
        assert_eq!(origin.forwarded_for, "203.0.113.9");
    }

    #[test]
    fn a_trusted_chain_is_read_from_its_near_end() {
        let origin = from("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.9.9.9", &["10.0.0.0/8"]);
        assert_eq!(origin.client.to_string(), "203.0.113.9");
        assert_eq!(origin.forwarded_for, "6.6.6.6, 203.0.113.9, 10.9.9.9, 10.0.0.1");
        assert_eq!(from("10.0.0.1", "junk, 10.1.1.1", &["10.0.0.0/8"]).client.to_string(), "10.1.1.1");
    }

    #[test]
    fn networks_contain_what_they_should() {
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("9.9.9.9".parse().unwrap()));
        let v6: Network = "2001:db8::/32".parse().unwrap();
        assert!(v6.contains("2001:db8::1".parse().unwrap()) && !v6.contains("2001:db9::1".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert_eq!(limit_key("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1:2::/64");
    }
}
