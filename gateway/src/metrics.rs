//! What the gateway counts, beyond the HTTP metrics that all services have.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prometheus::{
    register_gauge, register_gauge_vec, register_int_counter, register_int_counter_vec, register_int_gauge,
    register_int_gauge_vec,
};

use crate::proxy::Lane;
use crate::routes::Class;

#[derive(Clone)]
pub struct Metrics {
    /// Attempts at a service behind, by where and how they ended.
    pub upstream_requests: IntCounterVec,
    /// Requests sent on because the region asked was not the owner.
    pub reroutes: IntCounter,
    /// Attempts repeated after a failure.
    pub retries: IntCounter,
    /// Streams of seat-map events taken over from another process.
    pub resumed: IntCounter,
    /// Clients who hear a stream of seat-map events that others hear too, or could.
    pub watchers: IntGauge,
    /// Those let go because they did not keep up.
    pub watchers_dropped: IntCounter,
    /// Requests refused with 429.
    pub limited: IntCounterVec,
    /// Limit decisions that were made in this process because Redis did not answer.
    pub limit_fallback: IntCounter,
    pub redis_commands: IntCounterVec,
    /// Whether Redis answered last time.
    pub redis_up: IntGauge,
    /// Whether the feed of keys and revocations is connected.
    pub feed_up: IntGauge,
    /// Whether a region's service answered the last probe.
    pub region_up: IntGaugeVec,
    /// Open connections of clients.
    pub connections: IntGauge,
    /// Connections closed at once because there were too many.
    pub connections_refused: IntCounter,
    /// Requests refused for their form, before routing.
    pub malformed: IntCounterVec,
    /// Requests refused because those before them took too long.
    pub shed: IntCounterVec,
    /// Requests refused because this process is behind with its own work.
    pub shed_by_lag: IntCounterVec,
    /// How far behind it is: the least of a moment, of the worker that is furthest.
    pub lag: Gauge,
    /// How many lanes are refused for that, in parts.
    pub lanes_refused: Gauge,
    /// How often a process was left alone after failures.
    pub ejections: IntCounterVec,
    /// Requests that waited for a show to change hands.
    pub held: IntCounter,
    /// To a region's service and back.
    pub round_trip: GaugeVec,
}

impl Metrics {
    /// Registers them; call once a process.
    pub fn register() -> anyhow::Result<Self> {
        let metrics = Self {
            upstream_requests: register_int_counter_vec!(
                "marquee_gateway_upstream_requests_total",
                "Attempts at a service behind, by region (or global) and result.",
                &["target_region", "result"]
            )?,
            reroutes: register_int_counter!(
                "marquee_gateway_reroutes_total",
                "Requests sent on because the region asked was not the owner."
            )?,
            resumed: register_int_counter!(
                "marquee_gateway_streams_resumed_total",
                "Streams of seat-map events that were taken over from another process."
            )?,
            watchers: register_int_gauge!(
                "marquee_gateway_watchers",
                "Clients who hear a shared stream of seat-map events."
            )?,
            watchers_dropped: register_int_counter!(
                "marquee_gateway_watchers_dropped_total",
                "Clients let go because they did not keep up with a stream."
            )?,
            retries: register_int_counter!(
                "marquee_gateway_retries_total",
                "Attempts repeated after a failure."
            )?,
            limited: register_int_counter_vec!(
                "marquee_rate_limited_total",
                "Requests refused with 429, by class.",
                &["class"]
            )?,
            limit_fallback: register_int_counter!(
                "marquee_rate_limit_fallback_total",
                "Limit decisions made in the process because Redis did not answer."
            )?,
            redis_commands: register_int_counter_vec!(
                "marquee_redis_commands_total",
                "Commands sent to Redis, by result.",
                &["result"]
            )?,
            redis_up: register_int_gauge!("marquee_gateway_redis_up", "1 when Redis answered last time.")?,
            feed_up: register_int_gauge!("marquee_gateway_feed_up", "1 while the feed is connected.")?,
            region_up: register_int_gauge_vec!(
                "marquee_gateway_region_up",
                "1 when the region's service answered the last probe.",
                &["target_region"]
            )?,
            connections: register_int_gauge!("marquee_gateway_connections", "Open connections of clients.")?,
            connections_refused: register_int_counter!(
                "marquee_gateway_connections_refused_total",
                "Connections closed at once because there were too many."
            )?,
            malformed: register_int_counter_vec!(
                "marquee_gateway_malformed_total",
                "Requests refused for their form, before routing.",
                &["form"]
            )?,
            shed: register_int_counter_vec!(
                "marquee_gateway_shed_total",
                "Requests refused because the queue before a process has stood too long, by lane.",
                &["lane"]
            )?,
            shed_by_lag: register_int_counter_vec!(
                "marquee_gateway_shed_by_lag_total",
                "Requests refused because the gateway is behind with its own work, by lane.",
                &["lane"]
            )?,
            lag: register_gauge!(
                "marquee_gateway_lag_seconds",
                "How far the gateway is behind with its own work, the least of the last quarter of a second."
            )?,
            lanes_refused: register_gauge!(
                "marquee_gateway_lanes_refused",
                "How many lanes are refused because of the gateway's own lag, the last first."
            )?,
            ejections: register_int_counter_vec!(
                "marquee_gateway_ejections_total",
                "How often a process was left alone after failures.",
                &["target_region"]
            )?,
            held: register_int_counter!(
                "marquee_gateway_held_total",
                "Requests that waited for a show to change hands."
            )?,
            round_trip: register_gauge_vec!(
                "marquee_gateway_round_trip_seconds",
                "To a region's service and back, the best of late.",
                &["target_region"]
            )?,
        };
        for lane in Lane::ALL {
            metrics.shed.with_label_values(&[lane.as_str()]);
            metrics.shed_by_lag.with_label_values(&[lane.as_str()]);
        }
        // Counters that are there before their first event, so that a rate over them is never absent.
        for class in Class::ALL {
            metrics.limited.with_label_values(&[class.as_str()]);
        }
        for result in ["ok", "error", "timeout"] {
            metrics.redis_commands.with_label_values(&[result]);
        }
        Ok(metrics)
    }
}
