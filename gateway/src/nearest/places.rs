//! Where an address is, on the globe: from a database that the operator gives, of countries or of cities.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context;
use serde::Deserialize;

/// Degrees north and east.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub latitude: f64,
    pub longitude: f64,
}

impl Point {
    /// Along the surface; the Earth as a ball is near enough to tell which region is nearer.
    pub fn distance_km(self, other: Self) -> f64 {
        const EARTH_KM: f64 = 6371.0;
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half = |d: f64| (d / 2.0).sin().powi(2);
        let turn = (other.longitude - self.longitude).to_radians();
        let haversine = half(b - a) + a.cos() * b.cos() * half(turn);
        2.0 * EARTH_KM * haversine.sqrt().min(1.0).asin()
    }
}

/// Where most people of each country are, roughly; `CC latitude longitude` a line.
static COUNTRIES: LazyLock<HashMap<&'static str, Point>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let mut words = line.split(' ');
        let (code, latitude, longitude) = (words.next()?, words.next()?, words.next()?);
        Some((code, Point { latitude: latitude.parse().ok()?, longitude: longitude.parse().ok()? }))
    };
    include_str!("countries.txt").lines().filter_map(line).collect()
});

/// Both forms that such databases have: MaxMind's nested one, and the flat one of ip-location-db.
#[derive(Default, Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    country: Option<Country<'a>>,
    #[serde(default)]
    country_code: Option<&'a str>,
    #[serde(default)]
    location: Option<Location>,
    #[serde(default)]
    latitude: Option<f64>,
    #[serde(default)]
    longitude: Option<f64>,
}

#[derive(Deserialize)]
struct Country<'a> {
    #[serde(default)]
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    #[serde(default)]
    latitude: Option<f64>,
    #[serde(default)]
    longitude: Option<f64>,
}

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whereabouts {
    /// ISO 3166-1, two letters.
    pub country: Option<String>,
    pub point: Option<Point>,
}

pub struct Places(maxminddb::Reader<Vec<u8>>);

impl Places {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let reader = maxminddb::Reader::open_readfile(path)
            .with_context(|| format!("cannot read the address database {}", path.display()))?;
        Ok(Self(reader))
    }

    pub fn find(&self, address: IpAddr) -> Whereabouts {
        let found = self.0.lookup(address).and_then(|result| result.decode::<Record<'_>>());
        let record = match found {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the address database has an unreadable record");
                Record::default()
            }
        };
        let country = record.country_code.or(record.country.and_then(|c| c.iso_code));
        let location = record.location.map_or((None, None), |l| (l.latitude, l.longitude));
        let exact = match (record.latitude.or(location.0), record.longitude.or(location.1)) {
            (Some(latitude), Some(longitude)) => Some(Point { latitude, longitude }),
            _ => None,
        };
        Whereabouts {
            point: exact.or_else(|| COUNTRIES.get(country?).copied()),
            country: country.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_country_and_distances_are_those_of_the_atlas() {
        let lines = include_str!("countries.txt").lines().count();
        assert!(COUNTRIES.len() == lines && lines > 240);
        let of = |code: &str| COUNTRIES[code];
        assert!(COUNTRIES.values().all(|p| p.latitude.abs() <= 90.0 && p.longitude.abs() <= 180.0));
        let berlin = Point { latitude: 52.52, longitude: 13.405 };
        let sydney = Point { latitude: -33.87, longitude: 151.21 };
        assert!((berlin.distance_km(sydney) - 16_090.0).abs() < 100.0, "{}", berlin.distance_km(sydney));
        assert!(of("FJ").distance_km(of("WS")) < 2000.0, "across the date line");
        assert_eq!(berlin.distance_km(berlin), 0.0);
    }
}
