//! Following `global`'s feed: a stream that is resumed from its last position for as long as the process
//! lives. What is done with an update is the follower's own ([`Follower::apply`]).

use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::authz::jwt::JwkSet;
use crate::authz::{Authority, Inheritance, Policy, Rule};
use crate::proto::feed::feed_client::FeedClient;
use crate::proto::feed::update::Update as Kind;
use crate::proto::feed::{FollowRequest, Revocation, Update, revocation};

/// Updates applied at once.
const MAX_CHUNK: usize = 512;

/// What a service does with the feed.
#[tonic::async_trait]
pub trait Follower: Send + Sync + 'static {
    /// Where to go on; asked at every (re)connection.
    async fn position(&self) -> anyhow::Result<i64>;
    /// Applies updates in their order, durably where the service keeps them: all that have arrived at once, so
    /// that a whole catalogue does not stand between a revocation and its effect. An error breaks the stream
    /// and they are sent again.
    async fn apply(&self, updates: Vec<Update>) -> anyhow::Result<()>;
    /// The stream is up or down (with why), for readiness and the age of what is known.
    fn connection(&self, fault: Option<String>);
}

/// What a follower wants beside authority.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub movies: bool,
    /// Secrets, for services that hold personal data.
    pub month_keys: bool,
}

/// Follows until `stop`.
pub async fn follow(
    channel: Channel,
    name: String,
    wanted: Wanted,
    follower: impl Follower,
    stop: CancellationToken,
) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = stream(channel.clone(), &name, wanted, &follower) => ended,
        };
        let why = ended.err().map_or_else(|| "the stream ended".to_owned(), |e| format!("{e:#}"));
        tracing::warn!(why, "feed interrupted");
        follower.connection(Some(why));
        let pause = Duration::from_millis(200 + rand::random_range(0..300));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn stream(
    channel: Channel,
    name: &str,
    wanted: Wanted,
    follower: &impl Follower,
) -> anyhow::Result<()> {
    let after = follower.position().await?;
    let Wanted { movies, month_keys } = wanted;
    let request = FollowRequest { follower: name.to_owned(), after, movies, month_keys };
    let updates = FeedClient::new(channel).follow(request).await?.into_inner();
    let mut arrived = updates.ready_chunks(MAX_CHUNK);
    // The server beats once a second; silence means that the connection is dead.
    while let Some(chunk) = tokio::time::timeout(Duration::from_secs(5), arrived.next()).await? {
        let (mut good, mut fault) = (Vec::with_capacity(chunk.len()), None);
        for update in chunk {
            match update {
                Ok(update) => good.push(update),
                Err(status) => fault = Some(status),
            }
        }
        if !good.is_empty() {
            follower.apply(good).await?;
            follower.connection(None);
        }
        if let Some(status) = fault {
            return Err(status.into());
        }
    }
    Ok(())
}

/// Brings what concerns authority into `authority`; other kinds are left alone.
pub async fn apply_to_authority(authority: &Authority, update: &Update) -> anyhow::Result<()> {
    match &update.update {
        Some(Kind::Policy(policy)) => authority.set_policy(to_policy(policy).await?),
        Some(Kind::Keys(keys)) => authority.set_keys(&serde_json::from_str::<JwkSet>(&keys.jwks)?),
        Some(Kind::Revocation(revocation)) => apply_revocation(authority, revocation)?,
        Some(Kind::Movie(_) | Kind::MonthKeys(_) | Kind::Heartbeat(_)) | None => {}
    }
    Ok(())
}

async fn to_policy(policy: &crate::proto::feed::Policy) -> anyhow::Result<Policy> {
    let rules: Vec<Rule> = policy
        .rules
        .iter()
        .map(|r| Rule {
            role: r.role.clone(),
            region: r.region.clone(),
            resource: r.resource.clone(),
            action: r.action.clone(),
        })
        .collect();
    let roles: Vec<Inheritance> = policy
        .roles
        .iter()
        .map(|r| Inheritance { role: r.role.clone(), includes: r.includes.clone() })
        .collect();
    Policy::new(policy.version, &rules, &roles).await
}

fn apply_revocation(authority: &Authority, revocation: &Revocation) -> anyhow::Result<()> {
    match &revocation.who {
        Some(revocation::Who::SessionId(id)) => authority.revoke_session(id.parse()?, revocation.expires_at),
        Some(revocation::Who::User(user)) => {
            authority.revoke_user_below(user.user_id.parse()?, user.min_version, revocation.expires_at);
        }
        None => {}
    }
    Ok(())
}
