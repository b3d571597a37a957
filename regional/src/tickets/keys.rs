//! The keys with which tickets are signed and verified, and what a ticket's token says.

use common::authz::jwt::{Jwk, JwkSet, Keys, SigningKey, TokenError};
use common::proto::registry::TicketKey;
use common::seal::SealingKey;
use common::{ShowId, TicketId};
use deadpool_postgres::Pool;
use raft::client::RegistryView;
use serde::{Deserialize, Serialize};

const TYPE: &str = "ticket+jwt";
const AUDIENCE: &str = "marquee-ticket";
/// What the sealed key is sealed for.
const CONTEXT: &str = "ticket-key";

/// What a ticket's token says. No name, no price: who finds a ticket learns a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TicketClaims {
    pub iss: String,
    pub aud: String,
    /// The ticket.
    pub sub: TicketId,
    pub show: ShowId,
    pub seat: String,
}

pub struct TicketKeys {
    issuer: String,
    own: SigningKey,
    view: RegistryView,
}

impl TicketKeys {
    pub fn new(issuer: String, own: SigningKey, view: RegistryView) -> Self {
        Self { issuer, own, view }
    }

    /// The token of a ticket; the same each time.
    pub fn token(&self, ticket: TicketId, seat: &str) -> String {
        let claims = TicketClaims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: ticket,
            show: ticket.show(),
            seat: seat.to_owned(),
        };
        self.own.sign(TYPE, &claims)
    }

    /// What the token says, if any region of this platform signed it.
    pub fn verify(&self, token: &str) -> Result<TicketClaims, TokenError> {
        Keys::from_jwks(&self.public()).verify(token, TYPE, &self.issuer, AUDIENCE, false)
    }

    /// All regions' public keys, for scanners to take along.
    pub fn public(&self) -> JwkSet {
        let mut keys = vec![Jwk::ed25519(self.own.public())];
        for key in self.view.regions().into_iter().flat_map(|region| region.ticket_keys) {
            if let Ok(public) = <[u8; 32]>::try_from(key.public_key.as_slice()) {
                let jwk = Jwk::ed25519(&public);
                if !keys.contains(&jwk) {
                    keys.push(jwk);
                }
            }
        }
        JwkSet { keys }
    }
}

/// This region's key, made at the first start; processes of one region share it.
pub async fn own_key(pool: &Pool, sealing: &SealingKey) -> anyhow::Result<SigningKey> {
    let select = "SELECT sealed FROM ticket_keys ORDER BY created_at, kid LIMIT 1";
    let client = pool.get().await?;
    if client.query_opt(select, &[]).await?.is_none() {
        let key = SigningKey::generate();
        let insert = "INSERT INTO ticket_keys (kid, sealed) VALUES ($1, $2)";
        client.execute(insert, &[&key.kid(), &sealing.seal(CONTEXT, key.pkcs8())]).await?;
    }
    // Two processes may both have made one; the older serves both.
    let sealed: Vec<u8> = client.query_one(select, &[]).await?.get(0);
    Ok(SigningKey::from_pkcs8(&sealing.open(CONTEXT, &sealed)?)?)
}

/// The public half, as the registry keeps it.
pub fn announced(key: &SigningKey) -> TicketKey {
    TicketKey { kid: key.kid().to_owned(), public_key: key.public().to_vec().into() }
}
