//! Contacts of reservations: sealed on their way into a show's journal, opened on their way out.
//!
//! Invariant: past this file an address goes into no entry, table or file of this region. A customer's is sealed
//! under the key of the account, which this region is lent with each request and does not keep; that of somebody
//! without an account under the key of the show's month (`common::personal`). What the show counts by is a
//! digest under the same month's key, alike in all regions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::authz::{Actor, Authorized};
use common::personal::{Month, MonthKeys};
use common::proto::feed::GetPersonKeysRequest;
use common::proto::feed::feed_client::FeedClient;
use common::seal::SealingKey;
use common::{Problem, ReservationId, UserId};
use jiff::Timestamp;
use tonic::transport::Channel;

use crate::reservations::view::ReservationView;
use crate::show::{Contact, ContactDigest};

/// The first byte of what is sealed.
const UNDER_ACCOUNT: u8 = 1;
/// Then the month, in two bytes.
const UNDER_MONTH: u8 = 2;

/// `global` is asked by staff alone, who see the rest meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Contacts {
    months: MonthKeys,
    global: Channel,
}

/// What a sealed contact is opened with.
#[derive(Debug, PartialEq, Eq)]
enum Held<'a> {
    Account(&'a [u8]),
    Month(Month, &'a [u8]),
    /// It was never sealed, or by a later release.
    Unknown,
}

impl<'a> From<&'a Contact> for Held<'a> {
    fn from(contact: &'a Contact) -> Self {
        match contact.sealed() {
            [UNDER_ACCOUNT, sealed @ ..] => Self::Account(sealed),
            [UNDER_MONTH, high, low, sealed @ ..] => {
                Self::Month(Month(u16::from_be_bytes([*high, *low])), sealed)
            }
            _ => Self::Unknown,
        }
    }
}

/// A contact belongs to its reservation and cannot be moved to another.
fn context(reservation: ReservationId) -> String {
    format!("contact of {reservation}")
}

/// For who has no account.
fn for_guests(month: &SealingKey) -> SealingKey {
    SealingKey::from_bytes(month.derive("contacts without an account", b""))
}

/// `own`: the account's key; none for who has no account. `starts_at`: of the show, as it was created.
fn seal(
    months: &MonthKeys,
    address: &str,
    reservation: ReservationId,
    starts_at: Timestamp,
    own: Option<&SealingKey>,
) -> Option<Contact> {
    let (month, key) = months.near(Month::of(starts_at))?;
    let input = [reservation.show().0.as_bytes(), address.to_ascii_lowercase().as_bytes()].concat();
    let mut digest = [0; ContactDigest::BYTES];
    digest.copy_from_slice(&key.derive("contacts are counted", &input)[..ContactDigest::BYTES]);
    let (mut sealed, key) = match own {
        Some(own) => (vec![UNDER_ACCOUNT], own.clone()),
        None => ([&[UNDER_MONTH], &month.0.to_be_bytes()[..]].concat(), for_guests(&key)),
    };
    sealed.extend(key.seal(&context(reservation), address.as_bytes()));
    Some(Contact::new(digest, &sealed))
}

fn guests(months: &MonthKeys, contact: &str, reservation: &str) -> Option<String> {
    let contact: Contact = contact.parse().ok()?;
    match Held::from(&contact) {
        Held::Month(month, sealed) => {
            open(&for_guests(&months.of(month)?), reservation.parse().ok()?, sealed)
        }
        Held::Account(_) | Held::Unknown => None,
    }
}

fn open(key: &SealingKey, reservation: ReservationId, sealed: &[u8]) -> Option<String> {
    String::from_utf8(key.open(&context(reservation), sealed).ok()?).ok()
}

impl Contacts {
    pub fn new(months: MonthKeys, global: Channel) -> Self {
        Self { months, global }
    }

    /// A contact as the journal may have it. `customer`: the caller's own reservation; else somebody's without an
    /// account. 503 where there is no key for it: an address is never kept as it is.
    pub async fn seal(
        &self,
        address: &str,
        reservation: ReservationId,
        starts_at: Timestamp,
        customer: Option<&Actor>,
    ) -> Result<Contact, Problem> {
        let own = match customer {
            Some(actor) => Some(self.key_of(actor).await.ok_or_else(no_key)?),
            None => None,
        };
        seal(&self.months, address, reservation, starts_at, own.as_ref()).ok_or_else(no_key)
    }

    /// Fills in the contacts that can be opened. Those of others' accounts are the caller's to see already, or
    /// the reservations would not be here; their keys are asked of `global`, and are left out while it is away.
    pub async fn reveal(&self, authorized: &Authorized, views: &mut [ReservationView]) {
        let actor = authorized.actor().ok();
        let mut keys = BTreeMap::new();
        if let Some(actor) = actor
            && let Some(key) = self.lent(actor)
        {
            keys.insert(actor.user(), key);
        }
        let sealed_for = |view: &ReservationView| match view.sealed.as_ref().map(Held::from) {
            Some(Held::Account(_)) => view.customer_id,
            _ => None,
        };
        let lacking: BTreeSet<UserId> =
            views.iter().filter_map(sealed_for).filter(|user| !keys.contains_key(user)).collect();
        keys.extend(self.asked(&lacking).await);
        for view in views {
            view.contact_email = match view.sealed.as_ref().map(Held::from) {
                Some(Held::Account(sealed)) => {
                    view.customer_id.and_then(|user| open(keys.get(&user)?, view.id, sealed))
                }
                Some(Held::Month(month, sealed)) => {
                    self.months.of(month).and_then(|key| open(&for_guests(&key), view.id, sealed))
                }
                Some(Held::Unknown) | None => None,
            };
        }
    }

    /// Whether any key of a month is known; without one it is too early to say what cannot be opened.
    pub fn can_open(&self) -> bool {
        self.months.near(Month(0)).is_some()
    }

    /// The address of somebody without an account, as a table has it sealed; for a mail about the reservation. None: it
    /// is forgotten, or is not one.
    pub fn guests(&self, contact: &str, reservation: &str) -> Option<String> {
        guests(&self.months, contact, reservation)
    }

    /// The same of one.
    pub async fn revealed(&self, authorized: &Authorized, mut view: ReservationView) -> ReservationView {
        self.reveal(authorized, std::slice::from_mut(&mut view)).await;
        view
    }

    /// The key in the caller's own token.
    fn lent(&self, actor: &Actor) -> Option<SealingKey> {
        let claims = &actor.claims;
        self.months.from_claim(claims.sub, claims.iat, claims.pk.as_deref()?)
    }

    async fn key_of(&self, actor: &Actor) -> Option<SealingKey> {
        match self.lent(actor) {
            Some(key) => Some(key),
            None => self.asked(&BTreeSet::from([actor.user()])).await.pop_first().map(|(_, key)| key),
        }
    }

    async fn asked(&self, users: &BTreeSet<UserId>) -> BTreeMap<UserId, SealingKey> {
        if users.is_empty() {
            return BTreeMap::new();
        }
        let user_ids = users.iter().map(UserId::to_string).collect();
        let mut client = FeedClient::new(self.global.clone());
        let answer = client.get_person_keys(GetPersonKeysRequest { user_ids });
        let keys = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer.into_inner().keys,
            Ok(Err(status)) => {
                tracing::warn!(%status, "contacts of customers are left out: no keys from global");
                return BTreeMap::new();
            }
            Err(_) => {
                tracing::warn!("contacts of customers are left out: no keys from global in time");
                return BTreeMap::new();
            }
        };
        let key = |told: &common::proto::feed::PersonKey| {
            let bytes: [u8; 32] = told.key.as_ref().try_into().ok()?;
            Some((told.user_id.parse().ok()?, SealingKey::from_bytes(bytes)))
        };
        keys.iter().filter_map(key).collect()
    }
}

fn no_key() -> Problem {
    let detail = "the contact cannot be kept under its key now; leave it out, or try again";
    Problem::unavailable("contact-key-unavailable", detail, 2)
}

#[cfg(test)]
mod tests {
    use common::ShowId;
    use common::proto::feed;

    use super::*;
    use crate::testing::region;

    fn months(keys: &[(u16, u8)]) -> MonthKeys {
        let key = |(month, byte): &(u16, u8)| feed::MonthKey {
            month: u32::from(*month),
            key: vec![*byte; 32].into(),
        };
        let months = MonthKeys::default();
        months.set(&feed::MonthKeys { keys: keys.iter().map(key).collect() }).unwrap();
        months
    }

    fn reservation(show: ShowId) -> ReservationId {
        ReservationId::new(show, Timestamp::now(), rand::random())
    }

    const STARTS_AT: &str = "2026-12-24T18:00:00Z";
    const DECEMBER: u16 = 2026 * 12 + 11;

    fn starts_at() -> Timestamp {
        STARTS_AT.parse().unwrap()
    }

    #[test]
    fn an_address_is_sealed_under_its_owners_key_for_its_reservation() {
        let (months, own) = (months(&[(DECEMBER, 1)]), SealingKey::generate());
        let id = reservation(ShowId::new(&region("eu")));
        let contact = seal(&months, "Ada@example.org", id, starts_at(), Some(&own)).unwrap();
        let Held::Account(sealed) = Held::from(&contact) else { panic!("{contact}") };
        assert_eq!(open(&own, id, sealed).unwrap(), "Ada@example.org");
        assert_eq!(open(&SealingKey::generate(), id, sealed), None);
        assert_eq!(open(&own, reservation(id.show()), sealed), None);
        let written = format!("{contact} {contact:?}");
        assert!(!written.contains("example"), "{written}");
        assert_eq!(contact.to_string().parse::<Contact>().unwrap(), contact);
    }

    #[test]
    fn without_an_account_it_is_forgotten_with_the_shows_month() {
        let keys = months(&[(DECEMBER, 1), (DECEMBER + 1, 2)]);
        let id = reservation(ShowId::new(&region("eu")));
        let contact = seal(&keys, "ada@example.org", id, starts_at(), None).unwrap();
        let Held::Month(month, sealed) = Held::from(&contact) else { panic!("{contact}") };
        assert_eq!(month, Month(DECEMBER));
        let opened = |keys: &MonthKeys| open(&for_guests(&keys.of(month)?), id, sealed);
        assert_eq!(opened(&keys).unwrap(), "ada@example.org");
        let told = |keys: &MonthKeys, id: ReservationId| guests(keys, &contact.to_string(), &id.to_string());
        assert_eq!(told(&keys, id).unwrap(), "ada@example.org");
        assert_eq!(told(&keys, reservation(id.show())), None, "of another reservation");
        assert_eq!(told(&months(&[(DECEMBER + 1, 2)]), id), None);
        let own = seal(&keys, "ada@example.org", id, starts_at(), Some(&SealingKey::generate())).unwrap();
        assert_eq!(guests(&keys, &own.to_string(), &id.to_string()), None, "an account's is not a guest's");
        assert_eq!(opened(&months(&[(DECEMBER + 1, 2)])), None);
        assert_eq!(opened(&months(&[(DECEMBER, 3)])), None);
    }

    #[test]
    fn the_same_contact_counts_as_one_however_it_is_written_and_in_one_show_alone() {
        let (months, show) = (months(&[(DECEMBER, 1)]), ShowId::new(&region("eu")));
        let digest = |address: &str, show: ShowId, own: Option<&SealingKey>| {
            seal(&months, address, reservation(show), starts_at(), own).unwrap().digest()
        };
        let (ada, own) = ("ada@example.org", SealingKey::generate());
        assert_eq!(digest(ada, show, None), digest("Ada@Example.ORG", show, Some(&own)));
        assert_ne!(digest(ada, show, None), digest("eve@example.org", show, None));
        assert_ne!(digest(ada, show, None), digest(ada, ShowId::new(&region("eu")), None));
    }

    #[test]
    fn without_any_key_nothing_is_sealed_and_what_is_unknown_is_not_opened() {
        let id = reservation(ShowId::new(&region("eu")));
        assert_eq!(seal(&MonthKeys::default(), "ada@example.org", id, starts_at(), None), None);
        for contact in [
            Contact::counted("ada@example.org"),
            Contact::new([0; 6], &[9, 1, 2]),
            Contact::new([0; 6], &[2]),
        ] {
            assert_eq!(Held::from(&contact), Held::Unknown);
        }
    }
}
