//! Cinemas as the API shows and takes them, and what a valid one is.

use common::{CinemaId, Currency, FieldError, HallId, Problem, RegionName};
use jiff::tz::TimeZoneDatabase;
use serde::{Deserialize, Deserializer, Serialize};

/// A cinema: a house at an address, with halls.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Cinema {
    pub id: CinemaId,
    /// Its home region, for good.
    pub region: RegionName,
    #[schema(example = "Lichtburg")]
    pub name: String,
    #[schema(example = "Unter den Linden 1, Berlin")]
    pub address: String,
    /// Degrees, WGS 84.
    #[schema(minimum = -90, maximum = 90, example = 52.517)]
    pub latitude: f64,
    #[schema(minimum = -180, maximum = 180, example = 13.389)]
    pub longitude: f64,
    /// IANA name.
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// Of all its prices.
    pub currency: Currency,
    /// Rises with every change; the `ETag` begins with it.
    pub version: i64,
}

/// A cinema in a list.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ListedCinema {
    #[serde(flatten)]
    pub cinema: Cinema,
    /// From the point `near`, along the earth's surface; only where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, minimum = 0)]
    pub distance_m: Option<i64>,
}

/// A cinema with its halls.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CinemaDetails {
    #[serde(flatten)]
    pub cinema: Cinema,
    pub halls: Vec<HallSummary>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct HallSummary {
    pub id: HallId,
    pub name: String,
    /// Of its present layout.
    pub version: i32,
    /// Seats.
    pub capacity: i32,
}

/// What a cinema is created from.
#[derive(Clone, Debug, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCinema {
    #[schema(min_length = 1, max_length = 200, example = "Lichtburg")]
    pub name: String,
    #[schema(min_length = 1, max_length = 500, example = "Unter den Linden 1, Berlin")]
    pub address: String,
    #[schema(minimum = -90, maximum = 90, example = 52.517)]
    pub latitude: f64,
    #[schema(minimum = -180, maximum = 180, example = 13.389)]
    pub longitude: f64,
    /// IANA name.
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    pub currency: Currency,
}

/// What is to change; absent fields stay as they are.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CinemaPatch {
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    pub name: Option<String>,
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false, min_length = 1, max_length = 500)]
    pub address: Option<String>,
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false, minimum = -90, maximum = 90)]
    pub latitude: Option<f64>,
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false, minimum = -180, maximum = 180)]
    pub longitude: Option<f64>,
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false)]
    pub time_zone: Option<String>,
    /// Holds for shows created from now on.
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false)]
    pub currency: Option<Currency>,
}

/// A field that may be absent but not `null`: none of them can be taken away.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

impl CinemaPatch {
    /// The cinema's fields as they are to be.
    pub fn onto(self, cinema: &Cinema) -> NewCinema {
        NewCinema {
            name: self.name.unwrap_or_else(|| cinema.name.clone()),
            address: self.address.unwrap_or_else(|| cinema.address.clone()),
            latitude: self.latitude.unwrap_or(cinema.latitude),
            longitude: self.longitude.unwrap_or(cinema.longitude),
            time_zone: self.time_zone.unwrap_or_else(|| cinema.time_zone.clone()),
            currency: self.currency.unwrap_or(cinema.currency),
        }
    }
}

impl NewCinema {
    /// Trimmed, with the zone's name in its usual spelling; or every field at fault.
    pub fn checked(mut self) -> Result<Self, Problem> {
        let mut faults = Vec::new();
        check_text(&mut faults, "name", &mut self.name, 200);
        check_text(&mut faults, "address", &mut self.address, 500);
        check_degrees(&mut faults, "latitude", self.latitude, 90.0);
        check_degrees(&mut faults, "longitude", self.longitude, 180.0);
        match canonical_zone(&self.time_zone) {
            Some(name) => self.time_zone = name,
            None => faults.push(fault("time_zone", "is not an IANA time zone, such as Europe/Berlin")),
        }
        common::http::all_fields(faults)?;
        Ok(self)
    }
}

fn fault(field: &str, message: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), message: message.into() }
}

/// Trims `text`, which must then have 1 to `most` characters and no control characters.
pub fn check_text(faults: &mut Vec<FieldError>, field: &str, text: &mut String, most: usize) {
    let trimmed = text.trim();
    if !(1..=most).contains(&trimmed.chars().count()) {
        faults.push(fault(field, format!("must have 1 to {most} characters")));
    } else if crate::movies::text::has_control(trimmed) {
        faults.push(fault(field, "must not hold control characters"));
    } else if trimmed.len() < text.len() {
        *text = trimmed.to_owned();
    }
}

fn check_degrees(faults: &mut Vec<FieldError>, field: &str, degrees: f64, most: f64) {
    if !degrees.is_finite() || degrees.abs() > most {
        faults.push(fault(field, format!("must be between -{most} and {most}")));
    }
}

/// The zone's name as IANA spells it. Asked of the program's own table, which is the same in every region,
/// not of the machine's.
fn canonical_zone(name: &str) -> Option<String> {
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    zone.iana_name().filter(|name| *name != "Etc/Unknown").map(str::to_owned)
}

/// A point on the earth: `lat,lon` in degrees.
pub fn parse_point(text: &str) -> Result<(f64, f64), Problem> {
    let point = || {
        let (latitude, longitude) = text.split_once(',')?;
        let (latitude, longitude): (f64, f64) =
            (latitude.trim().parse().ok()?, longitude.trim().parse().ok()?);
        // Comparisons with NaN are false.
        (latitude.abs() <= 90.0 && longitude.abs() <= 180.0).then_some((latitude, longitude))
    };
    point()
        .ok_or_else(|| Problem::invalid("near", "must be `latitude,longitude` in degrees, such as 52.5,13.4"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> NewCinema {
        NewCinema {
            name: " Lichtburg ".into(),
            address: "Unter den Linden 1".into(),
            latitude: 52.517,
            longitude: 13.389,
            time_zone: "europe/berlin".into(),
            currency: "EUR".parse().unwrap(),
        }
    }

    fn fields(cinema: NewCinema) -> Vec<String> {
        cinema.checked().err().map_or_else(Vec::new, |p| p.errors.into_iter().map(|e| e.field).collect())
    }

    #[test]
    fn a_good_cinema_is_tidied() {
        let cinema = good().checked().unwrap();
        assert_eq!((cinema.name.as_str(), cinema.time_zone.as_str()), ("Lichtburg", "Europe/Berlin"));
    }

    #[test]
    fn every_field_at_fault_is_named_at_once() {
        let bad = NewCinema {
            name: " ".into(),
            address: "a\0b".into(),
            latitude: f64::NAN,
            longitude: 180.1,
            time_zone: "Berlin".into(),
            ..good()
        };
        assert_eq!(fields(bad), ["name", "address", "latitude", "longitude", "time_zone"]);
        assert!(fields(NewCinema { name: "é".repeat(200), ..good() }).is_empty());
        assert_eq!(fields(NewCinema { name: "é".repeat(201), ..good() }), ["name"]);
        for zone in ["", "UTC+1", "../../etc/passwd", "localtime", "Etc/Unknown"] {
            assert_eq!(fields(NewCinema { time_zone: zone.into(), ..good() }), ["time_zone"], "{zone}");
        }
    }

    #[test]
    fn points_are_read_or_refused() {
        assert_eq!(parse_point("52.5, -13.4").unwrap(), (52.5, -13.4));
        for bad in ["", "52.5", "91,0", "0,181", "NaN,0", "0,inf", "a,b", "1,2,3"] {
            assert!(parse_point(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_takes_nothing_away() {
        let patch = |text: &str| common::http::from_json::<CinemaPatch>(text.as_bytes());
        assert!(patch("{}").is_ok());
        assert_eq!(patch(r#"{"name": null}"#).unwrap_err().errors[0].field, "name");
        assert_eq!(patch(r#"{"nam": "x"}"#).unwrap_err().errors[0].field, "nam");
    }
}
