//! The casbin policy: kept in Postgres through an adapter, seeded from a readable file, edited over the
//! API, versioned. Deciding by it is `common::authz`'s.

pub mod adapter;
pub mod handlers;
pub mod store;

#[cfg(test)]
mod adapter_tests;
