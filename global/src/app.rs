//! One value that holds every dependency of the handlers.

use std::ops::Deref;
use std::sync::Arc;

use common::authz::Authority;
use common::personal::MonthKeys;
use common::seal::SealingKey;
use deadpool_postgres::{Object, Pool};

use crate::config::Config;
use crate::fault::Result;
use crate::feed::Feed;
use crate::keys::KeyRing;
use crate::mail::sender::Nudge;
use crate::passwords::Passwords;
use crate::throttle::Throttle;

const POOL_SIZE: usize = 32;
const FEED_POOL_SIZE: usize = 8;

pub struct Inner {
    pub config: Config,
    pub pool: Pool,
    pub authority: Arc<Authority>,
    pub keys: Arc<KeyRing>,
    pub feed: Feed,
    pub passwords: Passwords,
    pub throttle: Throttle,
    /// Wakes the sender of mail; to be called once what is in the outbox has committed.
    pub mail: Nudge,
    /// As `mail`, of mails about orders.
    pub order_mail: Nudge,
    /// As `mail`, of messages.
    pub sms: Nudge,
    /// For the keys of people in their tokens.
    pub month_keys: MonthKeys,
    /// For the tokens in mails, and people's keys.
    pub sealing: SealingKey,
}

#[derive(Clone)]
pub struct App(Arc<Inner>);

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let url = config.postgres_url.reveal();
        let pool = migrations::pool(url, POOL_SIZE)?;
        // Of its own: handlers wait for the feed, which must not wait for a connection of theirs.
        let feed_pool = migrations::pool(url, FEED_POOL_SIZE)?;
        let sealing = SealingKey::from_text(config.master_key.reveal()).map_err(anyhow::Error::msg)?;
        Ok(Self(Arc::new(Inner {
            authority: Authority::new(config.issuer.clone()),
            keys: Arc::new(KeyRing::new(sealing.clone())),
            feed: Feed::new(feed_pool, sealing.clone()),
            passwords: Passwords::new(&config.argon2)?,
            throttle: Throttle::new(sealing.clone()),
            mail: Nudge::default(),
            order_mail: Nudge::default(),
            sms: Nudge::default(),
            month_keys: MonthKeys::default(),
            sealing,
            config,
            pool,
        })))
    }

    pub async fn db(&self) -> Result<Object> {
        Ok(self.pool.get().await?)
    }
}
