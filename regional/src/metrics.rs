//! What an operator asks of a region.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::payments::Found;
use crate::replicas::metrics::ReplicaMetrics;
use crate::show::PaymentStatus;

#[derive(Clone)]
pub struct Metrics {
    reservations: IntCounterVec,
    payments: IntCounterVec,
    refunds: IntCounterVec,
    check_ins: IntCounterVec,
    pending: IntGaugeVec,
    captures_untold: IntCounter,
    books_wrong: IntGaugeVec,
    /// Shows led by this process now.
    pub shows_active: IntGauge,
    /// Streams of seat-map events that are open.
    pub watchers: IntGauge,
    /// Streams that were ended because their reader fell too far behind.
    pub watchers_dropped: IntCounter,
    /// Seat-map events written, each once for all watchers of its show.
    pub seat_events: IntCounter,
    /// Seat maps answered, by whether one was rendered, taken as rendered before, or not sent (304).
    pub seat_maps: SeatMaps,
    pub relay: RelayMetrics,
    pub replication: ReplicationMetrics,
    pub replicas: ReplicaMetrics,
    pub audit: AuditMetrics,
    /// Commands decided, by result.
    pub commands: Commands,
    /// Append statements, by result.
    pub journal_statements: IntCounterVec,
    /// Shows whose entries went into one statement.
    pub journal_batch_shows: Histogram,
    /// One append statement with its commit.
    pub journal_append_seconds: Histogram,
    /// Shows whose read models were behind at the last sweep.
    pub projection_behind: IntGauge,
    /// How old the oldest commit was that the last pass of the projector folded in.
    pub projection_lag_seconds: Gauge,
    /// Whether entries lie in the partition that takes what no year does.
    pub journal_strays: IntGauge,
}

/// What waits to be told to `global`'s audit log.
#[derive(Clone)]
pub struct AuditMetrics {
    pub waiting: IntGauge,
    pub oldest_secs: Gauge,
    /// Lines that `global` will never take; they stay in `audit_outbox`.
    pub refused: IntGauge,
}

/// Counters without a look-up: every command counts in one.
#[derive(Clone)]
pub struct Commands {
    pub done: IntCounter,
    pub repeated: IntCounter,
    pub already: IntCounter,
    pub refused: IntCounter,
    pub failed: IntCounter,
}

/// Counters without a look-up: this is the most frequent answer.
#[derive(Clone)]
pub struct SeatMaps {
    pub rendered: IntCounter,
    pub cached: IntCounter,
    pub not_modified: IntCounter,
}

/// Seat maps on their way between the processes of a region.
#[derive(Clone)]
pub struct RelayMetrics {
    /// Whether the connection that listens stands.
    pub up: IntGauge,
    /// Shows that another process leads and this one follows.
    pub copies: IntGauge,
    pub sent: IntCounter,
    /// Messages that were left out; those who follow read the journal instead.
    pub dropped: IntCounter,
    pub received: IntCounter,
    /// Messages before which another one was missing.
    pub gaps: IntCounter,
    /// Claims that could not be renewed.
    pub failed: IntCounter,
    /// Reads that could not ask who leads, and led.
    pub fallback: IntCounter,
}

/// Shows led here, and their entries on the way to other regions.
#[derive(Clone)]
pub struct ReplicationMetrics {
    led: IntCounterVec,
    /// From the decision of a batch until a majority holds it.
    pub quorum_seconds: Histogram,
    /// Entries of shows led here that a region is known to lack.
    pub lag: IntGaugeVec,
    /// Whether the stream to a region stands.
    pub connected: IntGaugeVec,
    /// Requests and answers for which there was no room; they are said again.
    pub dropped: IntCounter,
}

/// Why this process came to lead a show.
#[derive(Clone, Copy, Debug)]
pub enum Led {
    Created,
    /// The registry moved it here, or changed its replicas.
    Moved,
    /// Another process of the region led it.
    Process,
    /// This process led it before.
    Again,
}

impl ReplicationMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let led = Opts::new("marquee_shows_led_total", "Shows that this process came to lead, by reason.");
        let led = IntCounterVec::new(led, &["reason"])?;
        let quorum = HistogramOpts::new(
            "marquee_quorum_wait_seconds",
            "From the decision of a batch until a majority of the show's regions holds it.",
        );
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let quorum_seconds = Histogram::with_opts(quorum.buckets(buckets))?;
        let of_peers = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["peer"]);
        let lag = of_peers(
            "marquee_replication_lag_entries",
            "Entries of shows led here that a region is known to lack.",
        )?;
        let connected = of_peers("marquee_replication_connected", "1 while the stream to a region stands.")?;
        let dropped = IntCounter::new(
            "marquee_replication_dropped_total",
            "Requests and answers for which there was no room; they are said again.",
        )?;
        registry.register(Box::new(led.clone()))?;
        registry.register(Box::new(quorum_seconds.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { led, quorum_seconds, lag, connected, dropped })
    }
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["result"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let single = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let relayed = counter("marquee_seat_relay_total", "Seat-map messages between processes, by result.")?;
        let commands = counter("marquee_show_commands_total", "Commands decided, by result.")?;
        let seat_maps = counter("marquee_seat_maps_total", "Seat maps answered, by result.")?;
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let pending = Opts::new(
            "marquee_saga_pending",
            "Payments and refunds that wait for the provider for more than ten seconds.",
        );
        let pending = IntGaugeVec::new(pending, &["kind"])?;
        registry.register(Box::new(pending.clone()))?;
        let books_wrong = Opts::new(
            "marquee_books_wrong",
            "Payments of the last look whose money at the provider is not what the journals say.",
        );
        let books_wrong = IntGaugeVec::new(books_wrong, &["kind"])?;
        registry.register(Box::new(books_wrong.clone()))?;
        let projection_lag_seconds = Gauge::new(
            "marquee_projection_lag_seconds",
            "How old the oldest commit was that the projector last folded in.",
        )?;
        registry.register(Box::new(projection_lag_seconds.clone()))?;
        let audit_oldest_secs = Gauge::new(
            "marquee_audit_oldest_seconds",
            "For how long the oldest line for the audit log has waited.",
        )?;
        registry.register(Box::new(audit_oldest_secs.clone()))?;
        Ok(Self {
            reservations: counter("marquee_reservations_total", "Reservations asked for, by result.")?,
            payments: counter("marquee_payments_total", "Payments settled, by result.")?,
            refunds: counter("marquee_refunds_total", "Refunds carried out, by result.")?,
            check_ins: counter("marquee_check_ins_total", "Tickets shown at the door, by result.")?,
            pending,
            captures_untold: single(
                "marquee_captures_untold_total",
                "Money that the provider had and no journal knew of, found by comparing the books.",
            )?,
            books_wrong,
            shows_active: gauge("marquee_shows_active", "Shows led by this process now.")?,
            watchers: gauge("marquee_seat_watchers", "Streams of seat-map events that are open.")?,
            watchers_dropped: single(
                "marquee_seat_watchers_dropped_total",
                "Streams that were ended because their reader fell too far behind.",
            )?,
            seat_events: single(
                "marquee_seat_events_total",
                "Seat-map events written, each once for all watchers of its show.",
            )?,
            seat_maps: SeatMaps {
                rendered: seat_maps.with_label_values(&["rendered"]),
                cached: seat_maps.with_label_values(&["cached"]),
                not_modified: seat_maps.with_label_values(&["not_modified"]),
            },
            relay: RelayMetrics {
                up: gauge(
                    "marquee_seat_relay_up",
                    "1 while this process hears others' seat maps through Redis.",
                )?,
                copies: gauge(
                    "marquee_seat_copies",
                    "Shows that another process leads and this one follows.",
                )?,
                sent: relayed.with_label_values(&["sent"]),
                dropped: relayed.with_label_values(&["dropped"]),
                received: relayed.with_label_values(&["received"]),
                gaps: relayed.with_label_values(&["gap"]),
                failed: relayed.with_label_values(&["claim_failed"]),
                fallback: relayed.with_label_values(&["fallback"]),
            },
            replication: ReplicationMetrics::new(registry)?,
            replicas: ReplicaMetrics::new(registry)?,
            audit: AuditMetrics {
                waiting: gauge("marquee_audit_waiting", "Lines that wait to be told to the audit log.")?,
                oldest_secs: audit_oldest_secs,
                refused: gauge("marquee_audit_refused", "Lines that the audit log will never take.")?,
            },
            commands: Commands {
                done: commands.with_label_values(&["done"]),
                repeated: commands.with_label_values(&["repeated"]),
                already: commands.with_label_values(&["already"]),
                refused: commands.with_label_values(&["refused"]),
                failed: commands.with_label_values(&["failed"]),
            },
            journal_statements: counter("marquee_journal_statements_total", "Append statements, by result.")?,
            journal_batch_shows: histogram(
                "marquee_journal_batch_shows",
                "Shows whose entries went into one statement.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
            )?,
            journal_append_seconds: histogram(
                "marquee_journal_append_duration_seconds",
                "One append statement with its commit.",
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            )?,
            projection_lag_seconds,
            projection_behind: gauge(
                "marquee_projection_shows_behind",
                "Shows whose read models were behind at the last sweep.",
            )?,
            journal_strays: gauge(
                "marquee_journal_outside_years",
                "1 while the journal has entries that no year's partition takes.",
            )?,
        })
    }

    pub fn led(&self, reason: Led) {
        let reason = match reason {
            Led::Created => "created",
            Led::Moved => "moved",
            Led::Process => "process",
            Led::Again => "again",
        };
        self.replication.led.with_label_values(&[reason]).inc();
    }

    pub fn reservation(&self, result: &str) {
        self.reservations.with_label_values(&[result]).inc();
    }

    pub fn check_in(&self, result: &str) {
        self.check_ins.with_label_values(&[result]).inc();
    }

    /// A payment's outcome, when it was news.
    pub fn payment(&self, status: Option<PaymentStatus>, news: bool) {
        let result = match status {
            Some(PaymentStatus::Completed) => "completed",
            Some(PaymentStatus::Pending) => "pending",
            Some(PaymentStatus::Failed) => "failed",
            Some(PaymentStatus::Refunded | PaymentStatus::PartiallyRefunded) => "refunded",
            None => return,
        };
        if news {
            self.payments.with_label_values(&[result]).inc();
        }
    }

    pub fn refund(&self, done: bool) {
        self.refunds.with_label_values(&[if done { "completed" } else { "failed" }]).inc();
    }

    /// What the last look at the provider's books found.
    pub fn books(&self, found: &Found) {
        self.captures_untold.inc_by(found.untold as u64);
        for (kind, count) in [("stray", found.stray), ("differing", found.differing)] {
            self.books_wrong.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn pending(&self, payments: usize, refunds: usize) {
        for (kind, count) in [("payment", payments), ("refund", refunds)] {
            self.pending.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
