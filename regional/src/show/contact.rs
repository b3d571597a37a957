//! How a reservation's contact stands in the journal: sealed before it comes to the core, which can tell no more
//! than whether two are the same, by a digest.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thin_vec::ThinVec;

/// A sealed contact with its digest in one piece, so that it takes one word where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(ThinVec<u8>);

/// Equal for the same contact of one show; a keyed digest, of which no contact can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ContactDigest(u64);

impl ContactDigest {
    /// The digest is cut to this many bytes.
    pub const BYTES: usize = 6;
}

impl Contact {
    pub fn new(digest: [u8; ContactDigest::BYTES], sealed: &[u8]) -> Self {
        Self(digest.iter().chain(sealed).copied().collect())
    }

    /// One that is not sealed and can only be counted, as journals had it before there were keys (where it stands
    /// as it was written). The digest is FNV-1a; letters count the same in both cases.
    pub fn counted(written: &str) -> Self {
        let hash = written.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash.to_be_bytes()[2..].iter().copied().collect())
    }

    pub fn digest(&self) -> ContactDigest {
        let bytes = self.0.iter().take(ContactDigest::BYTES);
        ContactDigest(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// What is sealed; empty where it can only be counted.
    pub fn sealed(&self) -> &[u8] {
        self.0.get(ContactDigest::BYTES..).unwrap_or_default()
    }
}

/// As the journal and the tables have it.
impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for Contact {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| "a sealed contact is base64url")?;
        if bytes.len() < ContactDigest::BYTES {
            return Err("a sealed contact begins with its digest");
        }
        Ok(Self(bytes.into_iter().collect()))
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Contact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Contact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a contact")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Contact, E> {
        // An address as it was written before there were keys; no base64 has this letter.
        if text.contains('@') { Ok(Contact::counted(text)) } else { text.parse().map_err(E::custom) }
    }
}
