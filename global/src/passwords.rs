//! Hashing and checking passwords with Argon2id, off the async threads and never more at once than there
//! are cores: each takes megabytes and tens of milliseconds.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use common::Problem;
use tokio::sync::Semaphore;

use crate::config::Argon2Config;

/// Longer waits are refused: the queue would only grow.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Argon2Config {
    pub(crate) fn params(&self) -> Result<Params, argon2::Error> {
        Params::new(self.memory_kib, self.iterations, self.parallelism, None)
    }
}

#[derive(Clone)]
pub struct Passwords {
    params: Params,
    running: Arc<Semaphore>,
    /// Checked against where there is no account, so that the work tells nobody whether there is one.
    dummy: Arc<str>,
}

/// What checking a password showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Wrong,
    Right,
    /// Right, but its hash was made more cheaply than is wanted now.
    RightButOutdated,
}

impl Passwords {
    pub fn new(config: &Argon2Config) -> anyhow::Result<Self> {
        let params = config.params().map_err(|e| anyhow::anyhow!("argon2: {e}"))?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let nobody = format!("{:032x}", rand::random::<u128>());
        let dummy = hash(&params, &nobody).map_err(|e| anyhow::anyhow!("argon2: {e}"))?;
        Ok(Self { params, running: Arc::new(Semaphore::new(cores)), dummy: dummy.into() })
    }

    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let params = self.params.clone();
        self.run(move || hash(&params, &password)).await?.map_err(Problem::internal)
    }

    /// Compares with `stored`; none: with something nobody has, at the same cost.
    pub async fn check(&self, password: String, stored: Option<String>) -> Result<Check, Problem> {
        let (params, dummy) = (self.params.clone(), self.dummy.clone());
        self.run(move || check(&params, &password, stored.as_deref(), &dummy)).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let permit = tokio::time::timeout(MAX_WAIT, self.running.clone().acquire_owned())
            .await
            .map_err(|_| Problem::unavailable("busy", "too many sign-ins at once; try again", 2))?
            .map_err(Problem::internal)?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            // Held by the work, not by the request: an abandoned request still uses its core.
            drop(permit);
            result
        })
        .await
        .map_err(Problem::internal)
    }
}

fn hash(params: &Params, password: &str) -> Result<String, argon2::password_hash::Error> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string())
}

fn check(params: &Params, password: &str, stored: Option<&str>, dummy: &str) -> Check {
    // The parameters come from the stored hash itself.
    let matches = |hash: &PasswordHash| Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
    match stored.map(PasswordHash::new) {
        Some(Ok(hash)) if matches(&hash) => {
            let wanted = |p: &Params| {
                p.m_cost() >= params.m_cost()
                    && p.t_cost() >= params.t_cost()
                    && p.p_cost() >= params.p_cost()
            };
            if Params::try_from(&hash).is_ok_and(|p| wanted(&p)) {
                Check::Right
            } else {
                Check::RightButOutdated
            }
        }
        Some(Ok(_)) => Check::Wrong,
        Some(Err(_)) | None => {
            if let Ok(hash) = PasswordHash::new(dummy) {
                matches(&hash);
            }
            Check::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_and_outdated_are_told_apart() {
        let cheap = Argon2Config { memory_kib: 64, iterations: 1, parallelism: 1 };
        let passwords = Passwords::new(&cheap).unwrap();
        let stored = passwords.hash("a seat in row F".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        let check = async |p: &Passwords, text: &str, stored: Option<&String>| {
            p.check(text.into(), stored.cloned()).await.unwrap()
        };
        assert_eq!(check(&passwords, "a seat in row F", Some(&stored)).await, Check::Right);
        assert_eq!(check(&passwords, "a seat in row G", Some(&stored)).await, Check::Wrong);
        assert_eq!(check(&passwords, "a seat in row F", None).await, Check::Wrong);
        let dearer = Passwords::new(&Argon2Config { iterations: 2, ..cheap }).unwrap();
        assert_eq!(check(&dearer, "a seat in row F", Some(&stored)).await, Check::RightButOutdated);
        assert_ne!(stored, passwords.hash("a seat in row F".into()).await.unwrap(), "salted");
    }
}
