//! What an access token says.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{RegionName, SessionId, UserId};

/// A role, everywhere or in one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleGrant {
    #[schema(example = "employee")]
    pub role: String,
    /// Absent: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionName>,
}

/// The claims of an access token (RFC 7519, RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    /// The session that it belongs to; ends with it.
    pub sid: SessionId,
    pub jti: String,
    /// Unix seconds.
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub username: String,
    pub roles: Vec<RoleGrant>,
    /// Rises when the user's roles change or the user is disabled; older tokens are then void.
    pub ver: i64,
    /// Where the user wants to be served; absent: nearby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionName>,
    /// The key that the user's personal data is held under, sealed for the services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pk: Option<String>,
}

/// The authenticated caller.
#[derive(Clone, Debug)]
pub struct Actor {
    pub claims: Arc<Claims>,
}

impl Actor {
    pub fn user(&self) -> UserId {
        self.claims.sub
    }
}
