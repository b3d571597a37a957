//! Where a request came from, for the limit on the seats behind one address.
//!
//! The gateway says it in `X-Real-IP`, always its own word, never the client's; gateways alone reach this
//! service. A customer's address goes no further than this file: what a show learns is a keyed digest, another
//! for each show, so that neither the journal nor two shows' journals together tell an address.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use common::ShowId;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use ring::hmac;

use crate::show::Origin;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The client's address, where it is a public one. An own network's, or that of a proxy that nobody listed
/// as trusted, would make one customer of many. An extractor that never fails.
pub struct ClientAddress(pub Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(client_address(&parts.headers).filter(|address| is_public(*address))))
    }
}

/// The client's address, of whatever network.
pub fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    let said: IpAddr = headers.get(X_REAL_IP)?.to_str().ok()?.trim().parse().ok()?;
    Some(said.to_canonical())
}

fn is_public(address: IpAddr) -> bool {
    // Shared between a provider's customers and their provider (RFC 6598).
    let carrier = |v4: Ipv4Addr| v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || carrier(v4))
        }
        IpAddr::V6(v6) => {
            !(v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified())
        }
    }
}

/// Makes origins of addresses, under a key that only this region's processes have.
pub struct Origins(hmac::Key);

impl Origins {
    pub fn new(secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        // A key of its own, so that no other use of the secret can be played against this one.
        let own = hmac::sign(&key, b"marquee origins of reservations");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    /// IPv6 counts by the /64 that one subscriber has.
    pub fn of(&self, show: ShowId, address: IpAddr) -> Origin {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(show.0.as_bytes());
        match address {
            IpAddr::V4(v4) => context.update(&v4.octets()),
            IpAddr::V6(v6) => context.update(&v6.octets()[..8]),
        }
        // 48 bits: a reader of JSON whose numbers are doubles keeps them whole.
        let digest = context.sign();
        let first = digest.as_ref().iter().take(6);
        Origin(first.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::region;

    async fn told(value: Option<&str>) -> Option<IpAddr> {
        let mut request = http::Request::builder();
        if let Some(value) = value {
            request = request.header(X_REAL_IP, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        ClientAddress::from_request_parts(&mut parts, &()).await.unwrap().0
    }

    #[tokio::test]
    async fn only_public_addresses_tell_customers_apart() {
        for nothing in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "203.0.113.9, 1.1.1.1",
            "x",
        ] {
            assert_eq!(told(Some(nothing)).await, None, "{nothing}");
        }
        assert_eq!(told(None).await, None);
        assert_eq!(told(Some("203.0.113.9")).await, Some("203.0.113.9".parse().unwrap()));
        assert_eq!(told(Some("::ffff:203.0.113.9")).await, Some("203.0.113.9".parse().unwrap()));
        assert_eq!(told(Some("2001:db8::1")).await, Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn an_origin_stands_for_one_address_in_one_show_under_one_key() {
        let origins = Origins::new("a secret");
        let show = ShowId::new(&region("eu"));
        let of = |text: &str| origins.of(show, text.parse().unwrap());
        assert_eq!(of("203.0.113.9"), of("203.0.113.9"));
        assert_ne!(of("203.0.113.9"), of("203.0.113.10"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        let address = "203.0.113.9".parse().unwrap();
        assert_ne!(of("203.0.113.9"), origins.of(ShowId::new(&region("eu")), address));
        assert_ne!(of("203.0.113.9"), Origins::new("another").of(show, address));
        assert!(of("203.0.113.9").0 < 1 << 48);
    }
}
