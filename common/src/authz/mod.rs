//! Who may do what. A token proves the actor and carries its roles; casbin (RBAC with regions as domains)
//! decides by the policy that the feed brought; every route states its permission.
//!
//! Flow: [`Authority`] (keys, policy, revocations; kept current by the feed) → [`layer::enforce`] (looks the
//! route up in the service's permission table) → [`Authorized`] in the handler, which cannot be made any
//! other way.

pub mod authority;
pub mod claims;
pub mod jwt;
mod known;
pub mod layer;
pub mod policy;
mod refusals;

pub use authority::{Authority, TokenFault};
pub use claims::{Actor, Claims, RoleGrant};
pub use layer::{Authorized, Permission, Permissions, enforce, no_token};
pub use policy::{Inheritance, Policy, Rule};
