//! What this service tells Prometheus beside what every HTTP surface does.

use std::sync::LazyLock;

use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, register_int_counter_vec, register_int_gauge,
    register_int_gauge_vec,
};

pub struct Metrics {
    /// `result`: ok, wrong, slow_down, disabled, refreshed, refused, reused.
    pub signins: IntCounterVec,
    /// `result`: ok, refused.
    pub signups: IntCounterVec,
    pub feed_position: IntGauge,
    pub feed_followers: IntGauge,
    /// `state`: idle, used, waiting.
    pub pool_connections: IntGaugeVec,
}

/// One registry a process, so one set of metrics a process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let unique = "each name is registered here only";
    Metrics {
        signins: register_int_counter_vec!(
            "marquee_signins_total",
            "Calls of the token endpoint, by result.",
            &["result"]
        )
        .expect(unique),
        signups: register_int_counter_vec!("marquee_signups_total", "Sign-ups, by result.", &["result"])
            .expect(unique),
        feed_position: register_int_gauge!(
            "marquee_feed_position",
            "The last position of the feed that this process has seen."
        )
        .expect(unique),
        feed_followers: register_int_gauge!("marquee_feed_followers", "Streams of the feed that are open.")
            .expect(unique),
        pool_connections: register_int_gauge_vec!(
            "marquee_db_pool_connections",
            "Connections to Postgres, by state; `waiting` are requests without one.",
            &["state"]
        )
        .expect(unique),
    }
});

impl Metrics {
    pub fn sample_pool(&self, pool: &deadpool_postgres::Pool) {
        let status = pool.status();
        let set = |state, value: usize| {
            self.pool_connections.with_label_values(&[state]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set("idle", status.available);
        set("used", status.size.saturating_sub(status.available));
        set("waiting", status.waiting);
    }
}
