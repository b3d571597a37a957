//! Names of regions, and the tag by which an id tells its home region.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// A region's short name: 1 to 16 characters of `a-z 0-9 -`, starting with a letter (`eu`, `us-east`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RegionName(String);

#[derive(Debug, thiserror::Error)]
#[error("a region's name is 1 to 16 characters of a-z, 0-9 and '-', starting with a letter")]
pub struct BadRegionName;

impl RegionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last two bytes of every id that is born in this region, so that any gateway can send a
    /// request for a cinema, a hall or a not yet known show home without a look-up.
    pub fn tag(&self) -> [u8; 2] {
        let digest = Sha256::digest(self.0.as_bytes());
        [digest[0], digest[1]]
    }
}

/// Refuses a set of regions of which two share a tag: ids could not be told apart.
pub fn check_distinct_tags(regions: &[RegionName]) -> Result<(), String> {
    for (i, a) in regions.iter().enumerate() {
        for b in &regions[i + 1..] {
            if a.tag() == b.tag() {
                return Err(format!("the region names `{a}` and `{b}` collide; rename one"));
            }
        }
    }
    Ok(())
}

impl FromStr for RegionName {
    type Err = BadRegionName;

    fn from_str(s: &str) -> Result<Self, BadRegionName> {
        let ok = (1..=16).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok { Ok(Self(s.to_owned())) } else { Err(BadRegionName) }
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RegionName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for RegionName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[a-z][a-z0-9-]{0,15}$"))
            .examples(["eu"])
            .into()
    }
}

impl utoipa::ToSchema for RegionName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["eu", "us-east", "a"] {
            assert!(good.parse::<RegionName>().is_ok(), "{good}");
        }
        for bad in ["", "EU", "1a", "e u", "averyveryverylongname", "é"] {
            assert!(bad.parse::<RegionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn usual_regions_have_distinct_tags() {
        let names: Vec<RegionName> =
            ["eu", "us", "ap", "sa", "af", "me", "oc"].iter().map(|n| n.parse().unwrap()).collect();
        check_distinct_tags(&names).unwrap();
    }
}
