//! Accounts, their roles and their sessions.

pub mod auth;
pub mod email;
pub mod me;
pub mod password;
pub mod phone;
pub mod recover;
pub mod rules;
pub mod sessions;
pub mod store;
pub mod token;
pub mod users;

use common::authz::RoleGrant;
use common::{RegionName, UserId};
use jiff::Timestamp;
use serde::Serialize;

/// An account as its owner and admins see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct User {
    pub id: UserId,
    /// `null` once the account is deleted.
    pub email: Option<String>,
    /// `null` once the account is deleted.
    pub username: Option<String>,
    pub name: String,
    pub email_verified: bool,
    /// In the form of E.164; `null` where none was given.
    #[schema(example = "+4930123456")]
    pub phone: Option<String>,
    /// A code that was sent there came back; no message goes to a number before.
    pub phone_verified: bool,
    /// Whether messages about bookings go there.
    pub sms: bool,
    /// Where the user wants to be served; `null`: nearby.
    pub region: Option<RegionName>,
    pub roles: Vec<RoleGrant>,
    pub disabled: bool,
    pub created_at: Timestamp,
    /// Rises with every change; the `ETag` is made of it.
    pub version: i64,
}
