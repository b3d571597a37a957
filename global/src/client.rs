//! Where a request comes from, for sessions and the audit log: the address by the gateway's word, the
//! device by the client's own.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::header;
use http::request::Parts;

const MAX_DEVICE_CHARS: usize = 200;

#[derive(Clone, Debug)]
pub struct Client {
    /// An IP address, or empty when none is known.
    pub address: String,
    /// The user agent, cut to a bearable length.
    pub device: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Only the last hop was written by our own gateway; what stands before it anybody may have sent.
        let forwarded = parts
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.rsplit(',').next())
            .and_then(|v| v.trim().parse::<IpAddr>().ok());
        let peer = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
        let address = forwarded.or_else(peer).map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Self { address, device: agent.chars().take(MAX_DEVICE_CHARS).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn address(forwarded: &[&str]) -> String {
        let mut request =
            http::Request::builder().extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 9], 1))));
        for value in forwarded {
            request = request.header("x-forwarded-for", *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let Ok(client) = Client::from_request_parts(&mut parts, &()).await;
        client.address
    }

    #[tokio::test]
    async fn the_last_hop_is_believed_and_no_other() {
        assert_eq!(address(&[]).await, "10.0.0.9");
        assert_eq!(address(&["1.2.3.4, 5.6.7.8"]).await, "5.6.7.8");
        assert_eq!(address(&["1.2.3.4", "5.6.7.8"]).await, "5.6.7.8");
        assert_eq!(address(&["5.6.7.8, forged\""]).await, "10.0.0.9");
        assert_eq!(address(&["::ffff:5.6.7.8"]).await, "5.6.7.8");
    }
}
