//! Tokens whose signature has been checked already: checking one costs more than everything else that a
//! request needs of us.
//!
//! Invariant: what is remembered is only that a token's bytes were good under one set of keys. It is kept
//! beside those keys and goes with them; its times are looked at on every use, and revocations by the caller.
//! Bad tokens are not remembered, so that nobody fills the memory with them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use jiff::Timestamp;

use super::authority::{ACCESS_TOKEN_TYPE, AUDIENCE};
use super::claims::Claims;
use super::jwt::{Keys, TokenError};

/// Of each of two generations; a token takes about 700 bytes.
const MAX_TOKENS: usize = 20_000;

/// SHA-256 of the token, so that the memory holds none.
type Print = [u8; 32];

/// A set of keys and the tokens that were found good under them.
#[derive(Default)]
pub struct Known {
    pub keys: Keys,
    tokens: RwLock<Generations>,
}

/// When the young are many they become the old, and the old are forgotten: who comes again stays.
#[derive(Default)]
struct Generations {
    young: HashMap<Print, Arc<Claims>>,
    old: HashMap<Print, Arc<Claims>>,
}

impl Generations {
    fn put(&mut self, print: Print, claims: Arc<Claims>) {
        if self.young.len() >= MAX_TOKENS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(print, claims);
    }
}

impl Known {
    pub fn new(keys: Keys) -> Self {
        Self { keys, tokens: RwLock::default() }
    }

    /// The claims of a good access token.
    pub fn verify(&self, token: &str, issuer: &str) -> Result<Arc<Claims>, TokenError> {
        let print = print(token);
        if let Some(claims) = self.remembered(&print) {
            return Ok(claims);
        }
        let claims: Claims = self.keys.verify(token, ACCESS_TOKEN_TYPE, issuer, AUDIENCE, true)?;
        let claims = Arc::new(claims);
        self.tokens.write().expect("never poisoned").put(print, claims.clone());
        Ok(claims)
    }

    /// None also at the very second in which it ends: then the whole check tells.
    fn remembered(&self, print: &Print) -> Option<Arc<Claims>> {
        let (claims, is_old) = {
            let tokens = self.tokens.read().expect("never poisoned");
            match tokens.young.get(print) {
                Some(claims) => (claims.clone(), false),
                None => (tokens.old.get(print)?.clone(), true),
            }
        };
        let now = Timestamp::now().as_second();
        if !(claims.nbf..claims.exp).contains(&now) {
            return None;
        }
        if is_old {
            self.tokens.write().expect("never poisoned").put(*print, claims.clone());
        }
        Some(claims)
    }
}

fn print(token: &str) -> Print {
    let mut print = Print::default();
    print.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    print
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::jwt::{Jwk, JwkSet, SigningKey};
    use crate::{SessionId, UserId};

    const ISSUER: &str = "https://tickets.example";

    fn claims(lifetime_secs: i64) -> Claims {
        let now = Timestamp::now().as_second();
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: UserId::new(),
            sid: SessionId::new(),
            jti: "1".into(),
            iat: now,
            nbf: now,
            exp: now + lifetime_secs,
            username: "anna".into(),
            roles: Vec::new(),
            ver: 1,
            region: None,
            pk: None,
        }
    }

    fn known(key: &SigningKey) -> Known {
        Known::new(Keys::from_jwks(&JwkSet { keys: vec![Jwk::ed25519(key.public())] }))
    }

    fn count(known: &Known) -> usize {
        let tokens = known.tokens.read().unwrap();
        tokens.young.len() + tokens.old.len()
    }

    #[test]
    fn a_good_token_is_remembered_and_a_bad_one_is_not() {
        let key = SigningKey::generate();
        let known = known(&key);
        let good = key.sign(ACCESS_TOKEN_TYPE, &claims(60));
        let first = known.verify(&good, ISSUER).unwrap();
        assert!(Arc::ptr_eq(&first, &known.verify(&good, ISSUER).unwrap()));
        let forged = SigningKey::generate().sign(ACCESS_TOKEN_TYPE, &claims(60));
        let (head, signature) = good.rsplit_once('.').unwrap();
        let resigned = format!("{head}.{}", signature.chars().rev().collect::<String>());
        for bad in [forged.as_str(), &resigned, &key.sign(ACCESS_TOKEN_TYPE, &claims(-1)), "", "a.b.c"] {
            assert!(known.verify(bad, ISSUER).is_err(), "{bad}");
        }
        assert_eq!(count(&known), 1);
    }

    #[test]
    fn what_is_remembered_ends_with_the_token() {
        let key = SigningKey::generate();
        let known = known(&key);
        let (token, late) = (key.sign(ACCESS_TOKEN_TYPE, &claims(60)), claims(0));
        let early = Claims { nbf: late.nbf + 60, exp: late.exp + 120, ..late.clone() };
        for outside in [late, early] {
            // As if it had been checked in its time.
            known.tokens.write().unwrap().put(print(&token), Arc::new(outside));
            assert_eq!(known.remembered(&print(&token)), None);
        }
    }

    #[test]
    fn it_is_bounded_and_those_who_come_again_stay() {
        let known = known(&SigningKey::generate());
        let (kept, anybody) = (Arc::new(claims(60)), Arc::new(claims(60)));
        let of = |n: usize| print(&n.to_string());
        known.tokens.write().unwrap().put(of(usize::MAX), kept);
        for n in 0..3 * MAX_TOKENS {
            known.tokens.write().unwrap().put(of(n), anybody.clone());
            if n % (MAX_TOKENS / 2) == 0 {
                assert!(known.remembered(&of(usize::MAX)).is_some(), "after {n}");
            }
        }
        assert!(count(&known) <= 2 * MAX_TOKENS);
        assert!(known.remembered(&of(0)).is_none(), "it was not seen for two generations");
    }
}
