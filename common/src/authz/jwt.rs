//! EdDSA JSON Web Tokens (RFC 8037): access tokens and tickets. The cryptography is ring's; only EdDSA is
//! known here, so `none`, HS256 with a public key and their like have no code to reach.

use std::collections::HashMap;
use std::sync::Once;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

struct RingSigner(Ed25519KeyPair);

impl signature::Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct RingVerifier(Vec<u8>);

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let pair =
        Ed25519KeyPair::from_pkcs8(key.as_bytes()).map_err(|_| Error::from(ErrorKind::InvalidEddsaKey))?;
    Ok(Box::new(RingSigner(pair)))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier(key.try_get_as_bytes()?.to_vec())))
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn use_ring() {
    static ONCE: Once = Once::new();
    // An error means that it is installed already.
    ONCE.call_once(|| {
        let _ = RING.install_default();
    });
}

/// A private key with its id. The id is the public key's thumbprint (RFC 7638).
pub struct SigningKey {
    kid: String,
    pkcs8: Vec<u8>,
    public: [u8; 32],
    encoding: EncodingKey,
}

#[derive(Debug, thiserror::Error)]
#[error("not an Ed25519 key in PKCS#8 form")]
pub struct BadKey;

impl SigningKey {
    pub fn generate() -> Self {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system gives random bytes");
        Self::from_pkcs8(pkcs8.as_ref()).expect("what was just made is a key")
    }

    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| BadKey)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| BadKey)?;
        Ok(Self {
            kid: thumbprint(&public),
            pkcs8: pkcs8.to_vec(),
            public,
            encoding: EncodingKey::from_ed_der(pkcs8),
        })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// For storing, sealed ([`crate::seal`]).
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs claims; `typ` goes into the header (`at+jwt`, `ticket+jwt`).
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> String {
        use_ring();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).expect("plain claims and a checked key sign")
    }
}

fn thumbprint(public: &[u8; 32]) -> String {
    use sha2::Digest;
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, BASE64URL_NOPAD.encode(public));
    BASE64URL_NOPAD.encode(&sha2::Sha256::digest(jwk))
}

/// One public key of a JWK set (RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Jwk {
    #[schema(example = "OKP")]
    pub kty: String,
    #[schema(example = "Ed25519")]
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    pub kid: String,
    #[schema(example = "EdDSA")]
    pub alg: String,
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    pub purpose: String,
}

/// RFC 7517.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

impl Jwk {
    pub fn ed25519(public: &[u8; 32]) -> Self {
        Self {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: BASE64URL_NOPAD.encode(public),
            kid: thumbprint(public),
            alg: "EdDSA".into(),
            purpose: "sig".into(),
        }
    }
}

/// Public keys by id, ready to verify with.
#[derive(Clone, Default)]
pub struct Keys(HashMap<String, DecodingKey>);

/// Why a token was not accepted. Its text is safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    #[error("the token's signature or claims are not valid")]
    Invalid,
    #[error("the token has expired")]
    Expired,
}

impl Keys {
    pub fn from_jwks(set: &JwkSet) -> Self {
        let keys = set.keys.iter().filter(|k| k.kty == "OKP" && k.crv == "Ed25519");
        Self(
            keys.filter_map(|k| Some((k.kid.clone(), DecodingKey::from_ed_components(&k.x).ok()?))).collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims, if `typ`, signature, issuer, audience and (where `expires`) times hold. `leeway` 0.
    pub fn verify<T: DeserializeOwned + Clone>(
        &self,
        token: &str,
        typ: &str,
        issuer: &str,
        audience: &str,
        expires: bool,
    ) -> Result<T, TokenError> {
        use_ring();
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.typ.as_deref() != Some(typ) || header.alg != Algorithm::EdDSA {
            return Err(TokenError::Invalid);
        }
        let kid = header.kid.ok_or(TokenError::UnknownKey)?;
        let key = self.0.get(&kid).ok_or(TokenError::UnknownKey)?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.leeway = 0;
        rules.validate_exp = expires;
        rules.validate_nbf = expires;
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(if expires {
            &["exp", "nbf", "iss", "aud"][..]
        } else {
            &["iss", "aud"]
        });
        jsonwebtoken::decode::<T>(token, key, &rules).map(|data| data.claims).map_err(|e| match e.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            _ => TokenError::Invalid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn claims(exp: i64) -> Value {
        json!({"iss": "i", "aud": "a", "exp": exp, "nbf": 0, "x": 1})
    }

    fn far() -> i64 {
        jiff::Timestamp::now().as_second() + 60
    }

    #[test]
    fn only_whole_current_tokens_of_known_keys_pass() {
        let key = SigningKey::generate();
        let keys = Keys::from_jwks(&JwkSet { keys: vec![Jwk::ed25519(key.public())] });
        let check = |t: &str| keys.verify::<Value>(t, "at+jwt", "i", "a", true);
        let token = key.sign("at+jwt", &claims(far()));
        assert_eq!(check(&token).unwrap()["x"], 1);
        assert_eq!(check(&key.sign("at+jwt", &claims(1))), Err(TokenError::Expired));
        assert_eq!(check(&key.sign("ticket+jwt", &claims(far()))), Err(TokenError::Invalid));
        assert_eq!(
            check(&SigningKey::generate().sign("at+jwt", &claims(far()))),
            Err(TokenError::UnknownKey)
        );
        assert_eq!(check("a.b.c"), Err(TokenError::Malformed));
        assert!(keys.verify::<Value>(&token, "at+jwt", "other", "a", true).is_err());
        assert!(keys.verify::<Value>(&token, "at+jwt", "i", "other", true).is_err());

        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        parts[1] = BASE64URL_NOPAD.encode(claims(far() + 1000).to_string().as_bytes());
        assert_eq!(check(&parts.join(".")), Err(TokenError::Invalid));
        for alg in ["none", "HS256"] {
            parts[0] = BASE64URL_NOPAD
                .encode(json!({"alg": alg, "typ": "at+jwt", "kid": key.kid()}).to_string().as_bytes());
            assert!(check(&parts.join(".")).is_err(), "{alg}");
            assert!(check(&format!("{}.{}.", parts[0], parts[1])).is_err(), "{alg}");
        }
    }

    proptest! {
        /// Whatever a caller sends, it is no token, and nothing panics over it.
        #[test]
        fn no_text_is_a_token(
            text in prop_oneof![".{0,200}", "[A-Za-z0-9_=.-]{0,300}", r#"eyJ[A-Za-z0-9_-]{0,80}\.eyJ[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,90}"#],
        ) {
            let (_, keys) = known();
            prop_assert!(keys.verify::<Value>(&text, "at+jwt", "i", "a", true).is_err());
        }

        /// A genuine token with any one character changed, cut anywhere, or longer by anything is none.
        #[test]
        fn no_altered_token_passes(at in any::<prop::sample::Index>(), with in any::<char>(), cut in any::<bool>()) {
            let (key, keys) = known();
            let genuine = key.sign("at+jwt", &claims(far()));
            let at = at.index(genuine.len());
            let altered = if cut {
                genuine[..at].to_owned()
            } else {
                format!("{}{with}{}", &genuine[..at], &genuine[at + 1..])
            };
            prop_assume!(altered != genuine);
            prop_assert!(keys.verify::<Value>(&altered, "at+jwt", "i", "a", true).is_err(), "{altered}");
            let longer = format!("{genuine}{with}");
            prop_assert!(keys.verify::<Value>(&longer, "at+jwt", "i", "a", true).is_err(), "{longer}");
        }

        /// A header of any algorithm, type and key id over genuine claims, signed as it says or not at all.
        #[test]
        fn no_header_talks_us_into_it(
            alg in prop::sample::select(vec!["none", "NONE", "", "HS256", "HS384", "RS256", "ES256", "EdDSA", "PS512"]),
            typ in prop::sample::select(vec!["at+jwt", "JWT", "ticket+jwt"]),
            kid in prop_oneof![
                Just("../../../dev/null".to_owned()),
                Just("' OR '1'='1".to_owned()),
                Just("x'; DROP TABLE signing_keys; --".to_owned()),
                Just(String::new()),
                ".{0,60}",
            ],
            signature in prop::collection::vec(any::<u8>(), 0..65),
            own_kid in any::<bool>(),
        ) {
            let (key, keys) = known();
            let kid = if own_kid { key.kid().to_owned() } else { kid };
            let header = json!({"alg": alg, "typ": typ, "kid": kid}).to_string();
            let body = BASE64URL_NOPAD.encode(claims(far()).to_string().as_bytes());
            let token = format!(
                "{}.{body}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(&signature)
            );
            prop_assert!(keys.verify::<Value>(&token, "at+jwt", "i", "a", true).is_err(), "{header}");
        }
    }

    fn known() -> (SigningKey, Keys) {
        let key = SigningKey::generate();
        let keys = Keys::from_jwks(&JwkSet { keys: vec![Jwk::ed25519(key.public())] });
        (key, keys)
    }

    #[test]
    fn times_issuer_and_audience_are_demanded() {
        let (key, keys) = known();
        let check =
            |claims: Value| keys.verify::<Value>(&key.sign("at+jwt", &claims), "at+jwt", "i", "a", true);
        let with = |member: &str, value: Value| {
            let mut all = claims(far());
            all[member] = value;
            all
        };
        assert!(check(claims(far())).is_ok());
        for (what, bad) in [
            ("not yet valid", with("nbf", json!(far()))),
            ("a foreign issuer", with("iss", json!("https://evil.example"))),
            ("a foreign audience", with("aud", json!("b"))),
            ("an expiry that is text", with("exp", json!("9999999999"))),
            ("an expiry below nothing", with("exp", json!(-1))),
            ("no expiry", json!({"iss": "i", "aud": "a", "nbf": 0})),
            ("no issuer", json!({"aud": "a", "nbf": 0, "exp": far()})),
            ("no audience", json!({"iss": "i", "nbf": 0, "exp": far()})),
            ("no beginning", json!({"iss": "i", "aud": "a", "exp": far()})),
        ] {
            assert!(check(bad).is_err(), "{what}");
        }
    }

    #[test]
    fn a_stored_key_signs_alike() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(key.sign("t", &claims(5)), again.sign("t", &claims(5)));
        assert!(SigningKey::from_pkcs8(b"no").is_err());
    }
}
