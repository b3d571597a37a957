//! What this service tells Prometheus beside what every HTTP surface does.

use std::sync::LazyLock;

use prometheus::{
    Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_gauge, register_int_counter,
    register_int_counter_vec, register_int_gauge, register_int_gauge_vec,
};

pub struct Metrics {
    /// `result`: ok, wrong, slow_down, disabled, refreshed, refused, reused.
    pub signins: IntCounterVec,
    /// `result`: ok, refused.
    pub signups: IntCounterVec,
    pub passwords_waiting: IntGauge,
    pub passwords_busy: IntCounter,
    /// `kind`, of messages `sms`, of what regions brought that is none `notice`; `result`: sent, dropped (nobody to tell), again, refused, given_up.
    pub mails: IntCounterVec,
    pub mail_waiting: IntGauge,
    pub mail_oldest_secs: Gauge,
    pub sms_waiting: IntGauge,
    /// Lines that regions brought. `result`: new, known (told again), refused.
    pub audit_lines: IntCounterVec,
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
        passwords_waiting: register_int_gauge!(
            "marquee_passwords_waiting",
            "Sign-ins and the like that wait for the hash of their password to begin."
        )
        .expect(unique),
        passwords_busy: register_int_counter!(
            "marquee_passwords_busy_total",
            "Sign-ins and the like that were sent away because too many waited."
        )
        .expect(unique),
        mails: register_int_counter_vec!(
            "marquee_mails_total",
            "Attempts at mails, by kind and result; `again` will be tried again.",
            &["kind", "result"]
        )
        .expect(unique),
        mail_waiting: register_int_gauge!("marquee_mail_waiting", "Mails in the outbox.").expect(unique),
        sms_waiting: register_int_gauge!("marquee_sms_waiting", "Messages in the outbox.").expect(unique),
        mail_oldest_secs: register_gauge!(
            "marquee_mail_oldest_seconds",
            "For how long the oldest mail of the outbox has waited."
        )
        .expect(unique),
        audit_lines: register_int_counter_vec!(
            "marquee_audit_lines_total",
            "Lines that regions brought to the audit log, by result.",
            &["result"]
        )
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
