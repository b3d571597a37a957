//! Keys, policy and revocations as this process has them, kept current by the feed.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

use super::claims::Actor;
use super::jwt::{JwkSet, Keys, TokenError};
use super::known::Known;
use super::policy::{Policy, domain};
use crate::{RegionName, SessionId, UserId};

pub const AUDIENCE: &str = "marquee";
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// Tokens that are void before they expire. Entries are kept until no token they concern can be valid.
#[derive(Default)]
struct Revocations {
    sessions: HashMap<SessionId, i64>,
    users: HashMap<UserId, (i64, i64)>,
}

/// Why a bearer token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the session has ended or the account has changed; sign in or refresh")]
    Revoked,
}

impl TokenFault {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token(TokenError::Malformed) => "malformed",
            Self::Token(TokenError::UnknownKey) => "unknown_key",
            Self::Token(TokenError::Invalid) => "invalid",
            Self::Token(TokenError::Expired) => "expired",
            Self::Revoked => "revoked",
        }
    }
}

pub struct Authority {
    issuer: String,
    known: ArcSwap<Known>,
    policy: ArcSwapOption<Policy>,
    revoked: RwLock<Revocations>,
}

impl Authority {
    pub fn new(issuer: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            issuer: issuer.into(),
            known: ArcSwap::default(),
            policy: ArcSwapOption::empty(),
            revoked: RwLock::default(),
        })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn set_keys(&self, jwks: &JwkSet) {
        self.known.store(Arc::new(Known::new(Keys::from_jwks(jwks))));
    }

    /// Older versions than the present one are ignored.
    pub fn set_policy(&self, policy: Policy) {
        if self.policy.load().as_ref().is_none_or(|present| present.version() <= policy.version()) {
            self.policy.store(Some(Arc::new(policy)));
        }
    }

    pub fn revoke_session(&self, session: SessionId, expires_at: i64) {
        let mut revoked = self.revoked.write().expect("never poisoned");
        revoked.sessions.insert(session, expires_at);
        let now = Timestamp::now().as_second();
        if revoked.sessions.len().is_multiple_of(1024) {
            revoked.sessions.retain(|_, expires| *expires > now);
        }
    }

    pub fn revoke_user_below(&self, user: UserId, min_version: i64, expires_at: i64) {
        let mut revoked = self.revoked.write().expect("never poisoned");
        let entry = revoked.users.entry(user).or_default();
        entry.0 = entry.0.max(min_version);
        entry.1 = entry.1.max(expires_at);
        let now = Timestamp::now().as_second();
        if revoked.users.len().is_multiple_of(1024) {
            revoked.users.retain(|_, (_, expires)| *expires > now);
        }
    }

    /// Whether it can authenticate and decide at all.
    pub fn ready(&self) -> bool {
        !self.known.load().keys.is_empty() && self.policy.load().is_some()
    }

    /// The actor that a bearer token proves.
    pub fn authenticate(&self, token: &str) -> Result<Actor, TokenFault> {
        let claims = self.known.load().verify(token, &self.issuer)?;
        let revoked = self.revoked.read().expect("never poisoned");
        let session_ended = revoked.sessions.contains_key(&claims.sid);
        let outdated = revoked.users.get(&claims.sub).is_some_and(|(min, _)| claims.ver < *min);
        if session_ended || outdated { Err(TokenFault::Revoked) } else { Ok(Actor { claims }) }
    }

    /// Whether any of the actor's roles allows it. `region` none: a resource that belongs to no region.
    pub fn may(&self, actor: &Actor, region: Option<&RegionName>, resource: &str, action: &str) -> bool {
        let Some(policy) = &*self.policy.load() else { return false };
        actor.claims.roles.iter().any(|grant| {
            let covers = grant.region.is_none() || grant.region.as_ref() == region;
            covers && policy.allows(&grant.role, domain(region), resource, action)
        })
    }

    /// Whether any of the actor's roles allows it in at least one region (or everywhere).
    pub fn may_somewhere(&self, actor: &Actor, resource: &str, action: &str) -> bool {
        actor.claims.roles.iter().any(|grant| {
            let Some(policy) = &*self.policy.load() else { return false };
            policy.allows(&grant.role, domain(grant.region.as_ref()), resource, action)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Claims;
    use crate::authz::jwt::{Jwk, SigningKey};

    const ISSUER: &str = "https://tickets.example";

    fn claims(sub: UserId, sid: SessionId) -> Claims {
        let now = Timestamp::now().as_second();
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub,
            sid,
            jti: "1".into(),
            iat: now,
            nbf: now,
            exp: now + 60,
            username: "anna".into(),
            roles: Vec::new(),
            ver: 7,
            region: None,
            pk: None,
        }
    }

    #[test]
    fn a_token_that_was_good_is_refused_as_soon_as_it_is_void() {
        let (first, second) = (SigningKey::generate(), SigningKey::generate());
        let set =
            |keys: &[&SigningKey]| JwkSet { keys: keys.iter().map(|k| Jwk::ed25519(k.public())).collect() };
        let authority = Authority::new(ISSUER);
        authority.set_keys(&set(&[&first]));
        let (user, ended, open) = (UserId::new(), SessionId::new(), SessionId::new());
        let of = |session| first.sign(ACCESS_TOKEN_TYPE, &claims(user, session));
        let (of_ended, of_open) = (of(ended), of(open));
        for token in [&of_ended, &of_open] {
            // The second time it is remembered.
            assert!(authority.authenticate(token).is_ok() && authority.authenticate(token).is_ok());
        }
        authority.revoke_session(ended, i64::MAX);
        assert_eq!(authority.authenticate(&of_ended).unwrap_err(), TokenFault::Revoked);
        assert!(authority.authenticate(&of_open).is_ok());

        authority.set_keys(&set(&[&first, &second]));
        assert!(authority.authenticate(&of_open).is_ok());
        authority.set_keys(&set(&[&second]));
        assert_eq!(
            authority.authenticate(&of_open).unwrap_err(),
            TokenFault::Token(TokenError::UnknownKey),
            "nothing that an old key signed outlives it"
        );

        authority.set_keys(&set(&[&first]));
        assert!(authority.authenticate(&of_open).is_ok());
        authority.revoke_user_below(user, 8, i64::MAX);
        assert_eq!(authority.authenticate(&of_open).unwrap_err(), TokenFault::Revoked);
    }
}
