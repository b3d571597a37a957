//! Counting the decisions that refuse.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, register_int_counter_vec};

pub const NO_TOKEN: &str = "no_token";

/// `reason`: no_token, malformed, unknown_key, invalid, expired, revoked (those without the other two), role,
/// not_owner.
static REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "marquee_authority_refusals_total",
        "Requests that were refused for who sent them, by reason and by what they wanted to do.",
        &["reason", "resource", "action"]
    )
    .expect("the name is registered here only")
});

/// The labels are the program's own words, never the caller's.
pub fn refused(reason: &'static str, resource: &'static str, action: &'static str) {
    REFUSALS.with_label_values(&[reason, resource, action]).inc();
}
