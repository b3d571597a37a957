//! The demo's cinemas, halls and films: `data/cinemas.json`, read into types.

use std::collections::BTreeMap;

use common::RegionName;
use serde::Deserialize;
use serde_json::{Value, json};

const CINEMAS: &str = include_str!("../../data/cinemas.json");
/// 3,201 real films, with the gaps and oddities of real data.
pub const MOVIES_CSV: &str = include_str!("../../data/movies.csv");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    /// Titles on the programme.
    pub films: Vec<String>,
    pub cinemas: Vec<Cinema>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cinema {
    /// Where it stands when the platform has a region of this name.
    pub region: String,
    pub name: String,
    pub address: String,
    pub latitude: f64,
    pub longitude: f64,
    pub time_zone: String,
    pub currency: String,
    pub prices: Prices,
    pub halls: Vec<Hall>,
}

/// In minor units of the cinema's currency.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub adult: i64,
    pub child: i64,
    pub senior: i64,
    pub premium_extra: i64,
    pub vip_extra: i64,
    /// From 17:00 on.
    pub evening_extra: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hall {
    pub name: String,
    /// As the API takes it.
    #[serde(default)]
    pub grid: Option<Value>,
    #[serde(default)]
    pub rows: Vec<Row>,
}

/// One row of an irregular hall.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub row: String,
    /// Of the first place.
    pub x: f64,
    pub y: f64,
    /// A letter a place: s(tandard), p(remium), v(ip), a(ccessible), c(ompanion), `_` an aisle.
    pub seats: String,
}

pub fn demo() -> Demo {
    serde_json::from_str(CINEMAS).expect("a test reads the same constant")
}

/// The rows of these films, with the header: what the programme cannot do without.
pub fn programme_csv(titles: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut reader = csv::Reader::from_reader(MOVIES_CSV.as_bytes());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(reader.headers()?)?;
    for record in reader.records() {
        let record = record?;
        if titles.iter().any(|title| record.get(0) == Some(title.as_str())) {
            writer.write_record(&record)?;
        }
    }
    writer.into_inner().map_err(|e| anyhow::anyhow!("{}", e.error()))
}

impl Cinema {
    pub fn body(&self) -> Value {
        json!({
            "name": self.name, "address": self.address, "latitude": self.latitude,
            "longitude": self.longitude, "time_zone": self.time_zone, "currency": self.currency,
        })
    }
}

impl Prices {
    /// A price for every seat type and category.
    pub fn table(&self, evening: bool) -> Vec<Value> {
        let types = [
            ("standard", 0),
            ("premium", self.premium_extra),
            ("vip", self.vip_extra),
            ("accessible", 0),
            ("companion", 0),
        ];
        let categories = [("adult", self.adult), ("child", self.child), ("senior", self.senior)];
        let extra = if evening { self.evening_extra } else { 0 };
        types
            .iter()
            .flat_map(|(seat_type, more)| {
                categories.iter().map(move |(category, base)| {
                    json!({"seat_type": seat_type, "category": category, "amount": base + more + extra})
                })
            })
            .collect()
    }
}

impl Hall {
    pub fn body(&self) -> Value {
        if let Some(grid) = &self.grid {
            return json!({"name": self.name, "grid": grid});
        }
        let rows: Vec<Value> = self.rows.iter().map(Row::body).collect();
        json!({"name": self.name, "rows": rows})
    }
}

impl Row {
    fn body(&self) -> Value {
        let mut seats = Vec::new();
        let mut x = self.x;
        for place in self.seats.chars() {
            let kind = match place {
                's' => Some("standard"),
                'p' => Some("premium"),
                'v' => Some("vip"),
                'a' => Some("accessible"),
                'c' => Some("companion"),
                _ => None,
            };
            if let Some(kind) = kind {
                seats.push(json!({"number": seats.len() + 1, "type": kind, "x": x, "y": self.y}));
            }
            x += 1.0;
        }
        json!({"row": self.row, "seats": seats})
    }
}

/// Which cinemas stand in which region: those of a region's own name (`eu`, also `eu-west`), the rest dealt
/// out one by one; a region left with none takes one from whoever has most.
pub fn distribute(cinemas: &[Cinema], regions: &[RegionName]) -> BTreeMap<RegionName, Vec<Cinema>> {
    let mut dealt: BTreeMap<RegionName, Vec<Cinema>> =
        regions.iter().map(|r| (r.clone(), Vec::new())).collect();
    let named = |cinema: &Cinema, region: &RegionName| {
        region.as_str().split('-').next() == Some(cinema.region.as_str())
    };
    for cinema in cinemas {
        let own: Vec<&RegionName> = regions.iter().filter(|r| named(cinema, r)).collect();
        let candidates = if own.is_empty() {
            // Leave the well-provided alone.
            let unnamed: Vec<&RegionName> =
                regions.iter().filter(|r| !cinemas.iter().any(|c| named(c, r))).collect();
            if unnamed.is_empty() { regions.iter().collect() } else { unnamed }
        } else {
            own
        };
        if let Some(region) = candidates.into_iter().min_by_key(|r| dealt.get(*r).map_or(0, Vec::len)) {
            dealt.entry(region.clone()).or_default().push(cinema.clone());
        }
    }
    while let Some(empty) = regions.iter().find(|r| dealt.get(*r).is_none_or(Vec::is_empty)) {
        let richest = regions.iter().max_by_key(|r| dealt.get(*r).map_or(0, Vec::len));
        let Some(spare) = richest.and_then(|r| dealt.get_mut(r).filter(|c| c.len() > 1)?.pop()) else {
            break;
        };
        dealt.entry(empty.clone()).or_default().push(spare);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(regions: &[&str]) -> Vec<usize> {
        let regions: Vec<RegionName> = regions.iter().map(|r| r.parse().unwrap()).collect();
        let dealt = distribute(&demo().cinemas, &regions);
        regions.iter().map(|r| dealt[r].len()).collect()
    }

    #[test]
    fn every_region_gets_cinemas_and_every_cinema_a_region() {
        assert_eq!(counts(&["eu", "us", "ap"]), [3, 3, 3]);
        assert_eq!(counts(&["solo"]), [9]);
        assert_eq!(counts(&["north", "south"]), [5, 4]);
        assert_eq!(counts(&["eu", "us"]).iter().sum::<usize>(), 9);
        for regions in [&["eu-west", "eu-north", "us", "ap"][..], &["eu", "us", "ap", "sa", "af"]] {
            let counts = counts(regions);
            assert_eq!(counts.iter().sum::<usize>(), 9, "{counts:?}");
            assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
        }
        let regions = ["eu", "us", "ap"].map(|r| r.parse::<RegionName>().unwrap());
        for (region, cinemas) in distribute(&demo().cinemas, &regions) {
            assert!(cinemas.iter().all(|c| c.region == region.as_str()));
        }
    }

    #[test]
    fn the_data_file_keeps_its_promises() {
        let demo = demo();
        assert_eq!(demo.cinemas.len(), 9);
        for cinema in &demo.cinemas {
            assert!((2..=4).contains(&cinema.halls.len()), "{}", cinema.name);
            assert!(jiff::tz::TimeZone::get(&cinema.time_zone).is_ok(), "{}", cinema.time_zone);
            assert!(cinema.currency.parse::<common::Currency>().is_ok(), "{}", cinema.currency);
            assert_eq!(cinema.prices.table(true).len(), 15);
            for hall in &cinema.halls {
                assert_ne!(hall.grid.is_some(), !hall.rows.is_empty(), "{}: one of grid and rows", hall.name);
                for row in &hall.rows {
                    assert!(row.seats.chars().all(|c| "spvac_".contains(c)), "{}", row.seats);
                }
            }
        }
        let rows = String::from_utf8(programme_csv(&demo.films).unwrap()).unwrap();
        for film in &demo.films {
            assert!(
                rows.lines().any(|row| row.starts_with(&format!("{film},"))),
                "{film} is not in movies.csv"
            );
        }
        assert!((23..40).contains(&rows.lines().count()), "{rows}");
    }

    #[test]
    fn an_irregular_row_counts_its_seats_past_the_aisle() {
        let row = Row { row: "A".into(), x: 2.0, y: 1.5, seats: "ac_s".into() };
        let body = row.body();
        assert_eq!(body["seats"].as_array().unwrap().len(), 3);
        assert_eq!(body["seats"][2], json!({"number": 3, "type": "standard", "x": 5.0, "y": 1.5}));
    }
}
