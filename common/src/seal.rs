//! Sealing secrets at rest: private keys under a key that comes from the environment, what is personal under a
//! key that will be destroyed.
//!
//! ChaCha20-Poly1305 (RFC 8439); the nonce is random and stands before the ciphertext; `context` is
//! authenticated, so that a sealed key cannot be moved to another place.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

#[derive(Clone)]
pub struct SealingKey([u8; 32]);

#[derive(Debug, thiserror::Error)]
#[error(
    "the sealed value does not open: wrong key (MARQUEE_MASTER_KEY, where it is that), or it was altered"
)]
pub struct CannotOpen;

impl SealingKey {
    /// From any text of at least 16 characters; it should be random.
    pub fn from_text(text: &str) -> Result<Self, String> {
        if text.len() < 16 {
            return Err("the master key needs at least 16 characters".into());
        }
        Ok(Self(Sha256::digest(text.as_bytes()).into()))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// One that nobody can guess.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
        Self(bytes)
    }

    /// For sealing it under another key; it has no other way out.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.0).expect("the key has its length"))
    }

    pub fn seal(&self, context: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system gives random bytes");
        let mut body = secret.to_vec();
        self.key()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .expect("the message is short enough");
        [nonce.as_slice(), &body].concat()
    }

    /// A secret of its own for `context` and `input` (HMAC-SHA-256): always the same, and not to be guessed
    /// by who does not have the key.
    pub fn derive(&self, context: &str, input: &[u8]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        // The length keeps (context, input) apart from any other pair with the same concatenation.
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        mac.update(input);
        mac.sign().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let mut body = body.to_vec();
        let plain = self.key().open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| CannotOpen)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_whole_in_its_place_and_with_its_key() {
        let key = SealingKey::from_text("a long enough master key").unwrap();
        let sealed = key.seal("jwt", b"secret");
        assert_eq!(key.open("jwt", &sealed).unwrap(), b"secret");
        assert!(key.open("ticket", &sealed).is_err());
        assert!(SealingKey::from_text("another long enough key").unwrap().open("jwt", &sealed).is_err());
        let mut altered = sealed.clone();
        altered[20] ^= 1;
        assert!(key.open("jwt", &altered).is_err());
        assert!(key.open("jwt", &sealed[..5]).is_err());
    }

    #[test]
    fn derived_secrets_differ_by_key_context_and_input() {
        let key = SealingKey::from_text("a long enough master key").unwrap();
        assert_eq!(key.derive("a", b"bc"), key.derive("a", b"bc"));
        assert_ne!(key.derive("a", b"bc"), key.derive("ab", b"c"));
        assert_ne!(key.derive("a", b"bc"), key.derive("a", b"bd"));
        let other = SealingKey::from_text("another long enough key").unwrap();
        assert_ne!(key.derive("a", b"bc"), other.derive("a", b"bc"));
    }
}
