//! Personal data outside of `global` is held under keys that are destroyed, so that what cannot be changed (a
//! journal, an archive, a backup of them) forgets all the same.
//!
//! A person with an account has a key, which `global` alone keeps. It reaches a region inside the person's own
//! access token, sealed, so that a region seals and opens while `global` is away, and keeps no key that it would
//! have to destroy. Who has no account is forgotten by age: there is a key for each month ([`MonthKeys`]), made
//! ahead by `global`, brought to every region by the feed, and destroyed everywhere some time after its month.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::UserId;
use crate::proto::feed;
use crate::seal::SealingKey;

/// A month in UTC, counted from the year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(pub u16);

impl Month {
    pub fn of(at: Timestamp) -> Self {
        let date = at.to_zoned(TimeZone::UTC).date();
        let months = i32::from(date.year()) * 12 + i32::from(date.month()) - 1;
        Self(u16::try_from(months.max(0)).unwrap_or(u16::MAX))
    }
}

/// The keys of all months that are not forgotten, as last heard. Clones share what one of them is told.
#[derive(Clone, Default)]
pub struct MonthKeys(Arc<ArcSwap<BTreeMap<Month, SealingKey>>>);

/// How many there are; never what they are.
impl fmt::Debug for MonthKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MonthKeys({})", self.0.load().len())
    }
}

impl MonthKeys {
    /// Replaces all: a key that is not told again is forgotten. What is no key is refused whole.
    pub fn set(&self, told: &feed::MonthKeys) -> anyhow::Result<()> {
        let key = |told: &feed::MonthKey| -> anyhow::Result<(Month, SealingKey)> {
            let bytes: [u8; 32] = told.key.as_ref().try_into()?;
            Ok((Month(u16::try_from(told.month)?), SealingKey::from_bytes(bytes)))
        };
        let keys = told.keys.iter().map(key).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        self.0.store(Arc::new(keys));
        Ok(())
    }

    /// This month's, until it is forgotten.
    pub fn of(&self, month: Month) -> Option<SealingKey> {
        self.0.load().get(&month).cloned()
    }

    /// For what belongs to this month: its own, or the nearest that there is. None: nothing was heard yet.
    pub fn near(&self, month: Month) -> Option<(Month, SealingKey)> {
        let keys = self.0.load();
        let found = keys.range(month..).next().or_else(|| keys.iter().next_back());
        found.map(|(month, key)| (*month, key.clone()))
    }

    fn for_claims(&self, issued_at: i64) -> Option<SealingKey> {
        let month = Month::of(Timestamp::from_second(issued_at).ok()?);
        Some(SealingKey::from_bytes(self.of(month)?.derive("person keys in tokens", b"")))
    }

    /// A person's key as the claim of a token: services open it, nobody else.
    pub fn to_claim(&self, user: UserId, issued_at: i64, key: &SealingKey) -> Option<String> {
        let sealed = self.for_claims(issued_at)?.seal(&claim_of(user), key.bytes());
        Some(BASE64URL_NOPAD.encode(&sealed))
    }

    /// The person's key in the claim of a token that was checked.
    pub fn from_claim(&self, user: UserId, issued_at: i64, claim: &str) -> Option<SealingKey> {
        let sealed = BASE64URL_NOPAD.decode(claim.as_bytes()).ok()?;
        let opened = self.for_claims(issued_at)?.open(&claim_of(user), &sealed).ok()?;
        Some(SealingKey::from_bytes(opened.try_into().ok()?))
    }
}

fn claim_of(user: UserId) -> String {
    format!("the key of {user}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(months: &[u16]) -> feed::MonthKeys {
        let key = |month: &u16| feed::MonthKey {
            month: u32::from(*month),
            key: SealingKey::generate().bytes().to_vec().into(),
        };
        feed::MonthKeys { keys: months.iter().map(key).collect() }
    }

    fn month(text: &str) -> Month {
        Month::of(text.parse().unwrap())
    }

    #[test]
    fn months_begin_and_end_in_utc() {
        assert_eq!(month("2026-11-30T23:59:59Z").0 + 1, month("2026-12-01T00:00:00Z").0);
        assert_eq!(month("2026-12-31T23:59:59Z").0 + 1, month("2027-01-01T00:00:00+00:00").0);
        assert_eq!(month("2027-01-01T00:30:00+01:00"), month("2026-12-01T00:00:00Z"));
        assert_eq!(month("2026-01-01T00:00:00Z").0, 2026 * 12);
    }

    #[test]
    fn the_nearest_month_serves_where_its_own_is_not_there() {
        let keys = MonthKeys::default();
        assert!(keys.near(Month(5)).is_none());
        keys.set(&told(&[10, 11, 12])).unwrap();
        let near = |month: u16| keys.near(Month(month)).unwrap().0.0;
        assert_eq!([5, 10, 11, 12, 40].map(near), [10, 10, 11, 12, 12]);
    }

    #[test]
    fn what_is_not_told_again_is_forgotten_and_what_is_no_key_changes_nothing() {
        let keys = MonthKeys::default();
        let all = told(&[10, 11]);
        keys.set(&all).unwrap();
        let sealed = keys.of(Month(10)).unwrap().seal("x", b"secret");
        keys.set(&feed::MonthKeys { keys: vec![feed::MonthKey { month: 12, key: vec![1; 31].into() }] })
            .unwrap_err();
        assert_eq!(keys.of(Month(10)).unwrap().open("x", &sealed).unwrap(), b"secret");
        keys.set(&feed::MonthKeys { keys: all.keys[1..].to_vec() }).unwrap();
        assert!(keys.of(Month(10)).is_none());
        assert!(keys.near(Month(10)).unwrap().1.open("x", &sealed).is_err());
    }

    #[test]
    fn a_claim_opens_for_its_user_in_the_month_of_its_token() {
        let (keys, user, key) = (MonthKeys::default(), UserId::new(), SealingKey::generate());
        let at = Timestamp::now().as_second();
        assert!(keys.to_claim(user, at, &key).is_none(), "no key was heard of yet");
        let month = Month::of(Timestamp::now());
        keys.set(&told(&[month.0, month.0 + 2])).unwrap();
        let claim = keys.to_claim(user, at, &key).unwrap();
        assert_eq!(keys.from_claim(user, at, &claim).unwrap().bytes(), key.bytes());
        assert!(keys.from_claim(UserId::new(), at, &claim).is_none());
        assert!(keys.from_claim(user, at + 63 * 86_400, &claim).is_none());
        assert!(keys.from_claim(user, at, &claim[1..]).is_none());
        keys.set(&told(&[month.0])).unwrap();
        assert!(keys.from_claim(user, at, &claim).is_none(), "under another platform's keys");
    }
}
