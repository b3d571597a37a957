//! Which region serves whom: by wish, by setting, by address, by default; and never one that is down while
//! another is well.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::net::Ipv4Addr;

use gateway::Config;
use serde_json::Value;
use support::{Fake, Running, config, eventually};

/// Three regions with their places; the gateway is in `eu` and believes what `127.0.0.1` says of others.
async fn three(eu: &Fake, us: &Fake, ap: &Fake, database: &str) -> Config {
    let mut config = config(&[("eu", eu.url()), ("us", us.url()), ("ap", ap.url())]).await;
    for (region, (latitude, longitude)) in
        config.regions.iter_mut().zip([(50.1, 8.7), (39.0, -77.5), (1.3, 103.8)])
    {
        region.latitude = Some(latitude);
        region.longitude = Some(longitude);
    }
    config.trusted_proxies = vec!["127.0.0.1".into()];
    config.address_database = database.to_owned();
    config
}

async fn nearest(gateway: &Running, address: &str) -> Value {
    let request = gateway.get("/v1/regions/nearest").header("x-forwarded-for", address);
    let answered = request.send().await.unwrap();
    assert_eq!(answered.status(), 200);
    answered.json().await.unwrap()
}

async fn served_by(gateway: &Running, address: &str) -> String {
    let request = gateway.get("/v1/movies").header("x-forwarded-for", address);
    request.send().await.unwrap().text().await.unwrap()
}

fn small_database() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let networks = [
        (Ipv4Addr::new(203, 0, 113, 0), 24, "DE"),
        (Ipv4Addr::new(198, 51, 100, 0), 25, "US"),
        (Ipv4Addr::new(198, 51, 100, 128), 25, "JP"),
        (Ipv4Addr::new(192, 0, 2, 0), 24, "XX"),
    ];
    std::fs::write(file.path(), support::mmdb::of_countries(&networks)).unwrap();
    file
}

#[tokio::test]
async fn an_address_chooses_and_a_wish_outweighs_it() {
    let (eu, us, ap) = (Fake::ok("eu").await, Fake::ok("us").await, Fake::ok("ap").await);
    let database = small_database();
    let gateway = Running::start(three(&eu, &us, &ap, database.path().to_str().unwrap()).await).await;
    for (address, region, reason, country) in [
        ("203.0.113.7", "eu", "address", Some("DE")),
        ("198.51.100.1", "us", "address", Some("US")),
        ("198.51.100.200", "ap", "address", Some("JP")),
        // A country that nobody has heard of, and an address that nobody has.
        ("192.0.2.1", "eu", "default", Some("XX")),
        ("10.1.2.3", "eu", "default", None),
        ("2001:db8::1", "eu", "default", None),
    ] {
        let told = nearest(&gateway, address).await;
        assert_eq!(
            (told["region"].as_str(), told["reason"].as_str()),
            (Some(region), Some(reason)),
            "{told}"
        );
        assert_eq!(told["country"].as_str(), country, "{told}");
        assert_eq!(served_by(&gateway, address).await, region, "what is told is what is done");
    }
    let told = nearest(&gateway, "198.51.100.1").await;
    let of =
        |name: &str| told["candidates"].as_array().unwrap().iter().find(|c| c["region"] == name).unwrap();
    assert!(of("us")["distance_km"].as_u64() < of("eu")["distance_km"].as_u64());
    assert!(of("eu")["distance_km"].as_u64() < of("ap")["distance_km"].as_u64(), "{told}");

    let pinned = gateway.get("/v1/movies").header("x-forwarded-for", "203.0.113.7").header("x-region", "ap");
    assert_eq!(pinned.send().await.unwrap().text().await.unwrap(), "ap");
}

#[tokio::test]
async fn strangers_cannot_say_where_they_are() {
    let (eu, us, ap) = (Fake::ok("eu").await, Fake::ok("us").await, Fake::ok("ap").await);
    let database = small_database();
    let mut config = three(&eu, &us, &ap, database.path().to_str().unwrap()).await;
    config.trusted_proxies = vec!["10.0.0.0/8".into()];
    let gateway = Running::start(config).await;
    assert_eq!(nearest(&gateway, "198.51.100.1").await["reason"], "default");
    assert_eq!(served_by(&gateway, "198.51.100.1").await, "eu");
}

#[tokio::test]
async fn nobody_is_sent_to_a_region_that_is_down() {
    let (eu, us, ap) = (Fake::ok("eu").await, Fake::ok("us").await, Fake::ok("ap").await);
    let database = small_database();
    let gateway = Running::start(three(&eu, &us, &ap, database.path().to_str().unwrap()).await).await;
    assert_eq!(served_by(&gateway, "198.51.100.1").await, "us");
    drop(us);
    eventually("it is known to be down", || async {
        nearest(&gateway, "198.51.100.1").await["reason"] == "fallback"
    })
    .await;
    assert_eq!(served_by(&gateway, "198.51.100.1").await, "eu");
    // Who asks for it by name gets its error.
    let pinned = gateway.get("/v1/movies").header("x-region", "us").send().await.unwrap();
    assert_eq!(pinned.status(), 503);
}

/// `scripts/test` fetches the database from npm and names it here.
#[tokio::test]
async fn a_real_database_knows_well_known_addresses() {
    let Ok(path) = std::env::var("E2E_COUNTRIES") else {
        println!("E2E_COUNTRIES names no database: left out");
        return;
    };
    let (eu, us, ap) = (Fake::ok("eu").await, Fake::ok("us").await, Fake::ok("ap").await);
    let gateway = Running::start(three(&eu, &us, &ap, &path).await).await;
    // Networks of universities and old providers, which have stayed where they are for decades.
    for (address, country, region) in [
        ("141.1.1.1", "DE", "eu"),
        ("194.109.6.66", "NL", "eu"),
        ("18.7.22.69", "US", "us"),
        ("128.32.0.1", "US", "us"),
        ("133.11.0.1", "JP", "ap"),
        ("137.132.0.1", "SG", "ap"),
        ("2001:200::1", "JP", "ap"),
    ] {
        let told = nearest(&gateway, address).await;
        let seen = (told["country"].as_str(), told["region"].as_str());
        assert_eq!(seen, (Some(country), Some(region)), "{address}: {told}");
        assert_eq!(told["reason"], "address");
    }
}
