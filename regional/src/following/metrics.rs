//! What the feed's follower tells Prometheus.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge};

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::registered);

pub struct Metrics {
    /// `marquee_feed_position`
    pub position: IntGauge,
    /// `marquee_feed_connected`
    pub connected: IntGauge,
    /// `marquee_feed_refused_total`
    pub refused: IntCounter,
    heard_at_ms: Arc<AtomicI64>,
}

impl Metrics {
    fn registered() -> Self {
        let position = IntGauge::new(
            "marquee_feed_position",
            "Position in global's feed up to which all is known here.",
        );
        let connected = IntGauge::new("marquee_feed_connected", "1 while the feed's stream is up.");
        let refused =
            IntCounter::new("marquee_feed_refused_total", "Updates of the feed that could not be used.");
        let age =
            Gauge::new("marquee_feed_age_seconds", "Seconds since the feed's last update or heartbeat.");
        let named = "the names are well formed";
        let (position, connected) = (position.expect(named), connected.expect(named));
        let (refused, age) = (refused.expect(named), age.expect(named));
        let heard_at_ms = Arc::new(AtomicI64::new(0));
        let age = Age { gauge: age, heard_at_ms: heard_at_ms.clone() };
        let collectors: [Box<dyn Collector>; 4] = [
            Box::new(position.clone()),
            Box::new(connected.clone()),
            Box::new(refused.clone()),
            Box::new(age),
        ];
        for collector in collectors {
            if let Err(error) = prometheus::register(collector) {
                tracing::error!(%error, "a metric of the feed is not shown");
            }
        }
        Self { position, connected, refused, heard_at_ms }
    }

    pub fn heard(&self, at: Timestamp) {
        self.heard_at_ms.fetch_max(at.as_millisecond(), Ordering::Relaxed);
    }

    /// None: never heard.
    pub fn age(&self) -> Option<Duration> {
        age_since(&self.heard_at_ms)
    }
}

fn age_since(heard_at_ms: &AtomicI64) -> Option<Duration> {
    let heard_at_ms = Some(heard_at_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)?;
    let millis = Timestamp::now().as_millisecond() - heard_at_ms;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// An age grows without anyone touching it, so it is worked out when it is scraped. Absent until the feed
/// was heard for the first time.
struct Age {
    gauge: Gauge,
    heard_at_ms: Arc<AtomicI64>,
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(age) = age_since(&self.heard_at_ms) else { return Vec::new() };
        self.gauge.set(age.as_secs_f64());
        self.gauge.collect()
    }
}
