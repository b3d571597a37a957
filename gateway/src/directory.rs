//! The regions and where their services are; whether each answers is probed here, for `/v1/regions`.
//! Routing does not depend on the probe: a request is its own best probe.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use common::http::REGION;
use common::{Problem, RegionName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::proxy::{Client, Outgoing};

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// One lost probe is a hiccup.
const PROBES_TO_BE_DOWN: u32 = 2;

/// A service behind: `global`, or a region's.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// None for `global`.
    pub region: Option<RegionName>,
    scheme: Scheme,
    authority: Authority,
}

impl Upstream {
    fn new(region: Option<RegionName>, url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("not a URL: {url}"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.with_context(|| format!("no scheme: {url}"))?;
        anyhow::ensure!(scheme == Scheme::HTTP, "only http:// is spoken to services behind: {url}");
        let authority = parts.authority.with_context(|| format!("no host: {url}"))?;
        Ok(Self { region, scheme, authority })
    }

    /// For metrics and logs.
    pub fn label(&self) -> &str {
        self.region.as_ref().map_or("global", RegionName::as_str)
    }

    pub fn uri(&self, path_and_query: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).expect("all three parts are there")
    }
}

pub struct Region {
    pub name: RegionName,
    pub display_name: String,
    pub gateway_url: String,
    pub upstream: Upstream,
    up: AtomicBool,
}

impl Region {
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}

pub struct Directory {
    pub global: Upstream,
    regions: Vec<Region>,
    own: usize,
    by_tag: HashMap<[u8; 2], usize>,
}

impl Directory {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let mut regions = Vec::new();
        for region in &config.regions {
            regions.push(Region {
                name: region.name.clone(),
                display_name: region.display_name.clone(),
                gateway_url: region.gateway_url.clone(),
                upstream: Upstream::new(Some(region.name.clone()), &region.regional_url)?,
                up: AtomicBool::new(false),
            });
        }
        let own = regions.iter().position(|r| r.name == config.region);
        let own = own.context("the gateway's own region is not among the regions")?;
        let by_tag = regions.iter().enumerate().map(|(i, r)| (r.name.tag(), i)).collect();
        Ok(Self { global: Upstream::new(None, &config.global_url)?, regions, own, by_tag })
    }

    pub fn all(&self) -> &[Region] {
        &self.regions
    }

    pub fn own(&self) -> &Region {
        &self.regions[self.own]
    }

    pub fn named(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|r| r.name.as_str() == name)
    }

    pub fn by_tag(&self, tag: [u8; 2]) -> Option<&Region> {
        self.by_tag.get(&tag).map(|i| &self.regions[*i])
    }

    /// The region that the caller asks for by `X-Region`: 422 `unknown-region` when there is none such.
    pub fn pinned(&self, headers: &HeaderMap) -> Result<Option<&Region>, Problem> {
        let Some(value) = headers.get(&REGION) else { return Ok(None) };
        match value.to_str().ok().and_then(|name| self.named(name.trim())) {
            Some(region) => Ok(Some(region)),
            None => Err(unknown_region("X-Region")),
        }
    }

    /// Asks every region's service for a head, again and again, until `stop`.
    pub async fn probe(&self, client: &Client, stop: CancellationToken) {
        let probes = self.regions.iter().map(|region| probe_one(region, client));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = futures::future::join_all(probes) => {}
        }
    }
}

/// 422 for a region that nobody has heard of; `field` is where it was named.
pub fn unknown_region(field: &str) -> Problem {
    Problem::unprocessable("unknown-region", "there is no region of that name; see /v1/regions")
        .field(field, "names no region")
}

async fn probe_one(region: &Region, client: &Client) {
    let question = Outgoing::new(Method::HEAD, PathAndQuery::from_static("/openapi.json"), HeaderMap::new());
    let mut missed = 0;
    loop {
        let asked = client.send(&region.upstream, &question, Body::empty());
        let answered = matches!(tokio::time::timeout(PROBE_DEADLINE, asked).await, Ok(Ok(_)));
        missed = if answered { 0 } else { missed + 1 };
        let up = answered || (region.is_up() && missed < PROBES_TO_BE_DOWN);
        if region.up.swap(up, Ordering::Relaxed) != up {
            tracing::info!(region = %region.name, up, "a region's service changed");
        }
        client.metrics().region_up.with_label_values(&[region.name.as_str()]).set(up.into());
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}
