//! An authority for one platform, and the certificates it gives out: for `marquee up`, `marquee certificates`,
//! and tests. Larger installations have their own.
//!
//! The authority's key is never written anywhere: who needs one more certificate makes a new authority, and
//! gives every process its files.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::live::{Shown, Source};
use super::{Tls, names};
use crate::RegionName;

const VALID_DAYS: i64 = 825;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a process needs of the authority (PEM).
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// Who gets a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Regional(RegionName),
    Raft(RegionName),
    Gateway(RegionName),
    Global,
}

impl Holder {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Regional(region) => vec![names::regional(region), names::REGIONAL.to_owned()],
            Self::Raft(_) => vec![names::REGISTRY.to_owned()],
            Self::Gateway(_) => vec![names::GATEWAY.to_owned()],
            Self::Global => vec![names::GLOBAL.to_owned()],
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Regional(region) => write!(f, "regional-{region}"),
            Self::Raft(region) => write!(f, "raft-{region}"),
            Self::Gateway(region) => write!(f, "gateway-{region}"),
            Self::Global => f.write_str("global"),
        }
    }
}

impl Authority {
    /// # Errors
    /// Where the system gives no randomness.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named("Marquee's processes", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's own certificate, which everybody is to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// # Errors
    /// As [`Self::new`].
    pub fn issue(&self, holder: &Holder) -> anyhow::Result<Issued> {
        let key = KeyPair::generate()?;
        let mut params = named(&holder.to_string(), holder.names())?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Each is a server to some and a client to others.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

impl Authority {
    /// What the holder would load, without files.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn tls(&self, holder: &Holder) -> anyhow::Result<Tls> {
        let issued = self.issue(holder)?;
        let shown = Shown::of(self.pem.as_bytes(), issued.certificate.as_bytes(), issued.key.as_bytes())?;
        Ok(Tls(Some(Arc::new(Source::Fixed(shown)))))
    }
}

fn named(common_name: &str, names: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    let day = |days: i64| {
        let date = Timestamp::now().to_zoned(TimeZone::UTC).date().saturating_add(days.days());
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // Clocks differ.
    (params.not_before, params.not_after) = (day(-1), day(VALID_DAYS));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
