//! Merging the regions' pages into one list, and the cursor that goes on with it.
//!
//! A region's page can rarely be used up, and its cursors tell only page ends. So the cursor keeps, for
//! each region, the page to read again, and one position for all: what is not older has been given.
//!
//! Invariant: an item is given only when no region can still have a newer one.

use std::collections::BTreeMap;

use common::{Problem, RegionName};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An item's place in the list: by time, then by id, newest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    #[serde(rename = "created_at")]
    at: Timestamp,
    id: String,
}

pub struct Item {
    pub position: Position,
    raw: Box<RawValue>,
}

impl Item {
    pub fn read(raw: Box<RawValue>) -> serde_json::Result<Self> {
        Ok(Self { position: serde_json::from_str(raw.get())?, raw })
    }
}

/// What one region gave, newest first.
pub struct Pages {
    pub region: RegionName,
    /// The cursor with which the region gave `items`.
    pub page: Option<String>,
    pub items: Vec<Item>,
    /// The region's cursor of the page after.
    pub next: Option<String>,
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// What was given last. None: nothing yet.
    pub after: Option<Position>,
    /// The page to read next, by region. None: at the start; then every region is wanted, while later
    /// only those named here are.
    pages: Option<BTreeMap<RegionName, Option<String>>>,
    /// Regions that have not answered since the list began.
    pub missing: Vec<RegionName>,
}

impl Cursor {
    /// 422 for text that is no cursor.
    pub fn read(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else { return Ok(Self::default()) };
        serde_json::from_str(text)
            .map_err(|_| Problem::invalid("cursor", "is not a cursor that this list gave"))
    }

    /// None: the list is at its end.
    pub fn write(&self) -> Option<String> {
        let goes_on = self.pages.as_ref().is_some_and(|pages| !pages.is_empty());
        let text = || serde_json::to_string(self).expect("plain data");
        goes_on.then(|| BASE64URL_NOPAD.encode(text().as_bytes()))
    }

    pub fn wants(&self, region: &RegionName) -> bool {
        self.pages.as_ref().is_none_or(|pages| pages.contains_key(region))
    }

    pub fn page_of(&self, region: &RegionName) -> Option<String> {
        self.pages.as_ref()?.get(region)?.clone()
    }

    /// At most `limit` items, newest first, and where the list goes on. A region that is missing now stays
    /// missing for the rest of this list: its newer items could no longer be given in order.
    pub fn merge(
        &self,
        mut given: Vec<Pages>,
        missing: Vec<RegionName>,
        limit: usize,
    ) -> (Vec<Box<RawValue>>, Self) {
        for pages in &mut given {
            pages.items.sort_by(|a, b| a.position.cmp(&b.position));
        }
        let mut items = Vec::new();
        let mut after = self.after.clone();
        while items.len() < limit {
            // A region whose page is used up may have more that is newer than what others still hold.
            if given.iter().any(|pages| pages.items.is_empty() && pages.next.is_some()) {
                break;
            }
            let newest = given.iter_mut().max_by(|a, b| newest(a).cmp(&newest(b)));
            let Some(item) = newest.and_then(|pages| pages.items.pop()) else { break };
            // While a show changes hands two regions may list the same.
            if after.as_ref() != Some(&item.position) {
                after = Some(item.position);
                items.push(item.raw);
            }
        }
        let pages = given.into_iter().filter_map(|pages| match (pages.items.is_empty(), pages.next) {
            (false, _) => Some((pages.region, pages.page)),
            (true, Some(next)) => Some((pages.region, Some(next))),
            (true, None) => None,
        });
        let mut all_missing = self.missing.clone();
        all_missing.extend(missing);
        (items, Self { after, pages: Some(pages.collect()), missing: all_missing })
    }
}

/// The last, since items stand in ascending order while they are taken.
fn newest(pages: &Pages) -> Option<&Position> {
    pages.items.last().map(|item| &item.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str, second: i64) -> Box<RawValue> {
        let at = Timestamp::from_second(second).unwrap();
        RawValue::from_string(format!(r#"{{"id":"{name}{second}","created_at":"{at}"}}"#)).unwrap()
    }

    /// A region as it would answer: the items of `seconds`, newest first, by pages of `limit`.
    fn page(name: &str, seconds: &[i64], cursor: &Cursor, limit: usize) -> Pages {
        let region: RegionName = name.parse().unwrap();
        let page = cursor.page_of(&region);
        let start = page.as_ref().map_or(0, |p| p.parse().unwrap());
        let mut sorted = seconds.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let items = sorted.iter().skip(start).take(limit).map(|s| Item::read(raw(name, *s)).unwrap());
        let items = items.filter(|i| cursor.after.as_ref().is_none_or(|a| i.position < *a)).collect();
        let next = (start + limit < sorted.len()).then(|| (start + limit).to_string());
        Pages { region, page, items, next }
    }

    #[test]
    fn every_item_is_given_once_and_in_order() {
        let (eu, us, ap): (Vec<i64>, Vec<i64>, Vec<i64>) =
            ((0..17).map(|i| i * 3).collect(), (20..40).collect(), vec![1]);
        let mut wanted: Vec<i64> = eu.iter().chain(&us).chain(&ap).copied().collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let wanted: Vec<String> =
            wanted.iter().map(|s| Timestamp::from_second(*s).unwrap().to_string()).collect();
        for limit in [1, 2, 3, 5, 50] {
            let mut cursor = Cursor::default();
            let mut got: Vec<String> = Vec::new();
            loop {
                let regions = [("eu", &eu), ("us", &us), ("ap", &ap)];
                let given = regions
                    .iter()
                    .filter(|(name, _)| cursor.wants(&name.parse().unwrap()))
                    .map(|(name, seconds)| page(name, seconds, &cursor, limit))
                    .collect();
                let (items, next) = cursor.merge(given, Vec::new(), limit);
                assert!(items.len() <= limit && !items.is_empty());
                got.extend(items.iter().map(|i| {
                    let value: serde_json::Value = serde_json::from_str(i.get()).unwrap();
                    value["created_at"].as_str().unwrap().to_owned()
                }));
                let Some(text) = next.write() else { break };
                let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()).unwrap();
                cursor = Cursor::read(Some(&text)).unwrap();
            }
            let mut sorted = got.clone();
            sorted.sort_by_key(|at| std::cmp::Reverse(at.parse::<Timestamp>().unwrap()));
            assert_eq!(got, sorted, "limit {limit}");
            assert_eq!(got.len(), wanted.len(), "limit {limit}");
        }
    }

    #[test]
    fn what_two_regions_list_is_given_once() {
        let start = Cursor::default();
        let mut twin = page("eu", &[5, 6], &start, 9);
        twin.region = "us".parse().unwrap();
        let (items, _) = start.merge(vec![page("eu", &[5, 6, 7], &start, 9), twin], Vec::new(), 9);
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn a_missing_region_stays_named_and_does_not_keep_the_list_open() {
        let us: RegionName = "us".parse().unwrap();
        let start = Cursor::default();
        let (_, next) = start.merge(vec![page("eu", &[1, 2, 3], &start, 2)], vec![us.clone()], 2);
        assert_eq!((next.wants(&us), next.missing.as_slice()), (false, [us.clone()].as_slice()));
        let (_, end) = next.merge(vec![page("eu", &[1, 2, 3], &next, 2)], Vec::new(), 2);
        assert_eq!((end.write(), end.missing), (None, vec![us]));
    }
}
