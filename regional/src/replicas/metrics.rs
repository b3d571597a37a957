//! What an operator asks of a region's replicas.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::Answer;
use crate::replication::Unable;

#[derive(Clone)]
pub struct ReplicaMetrics {
    answers: IntCounterVec,
    transactions: IntCounterVec,
    refused: IntCounterVec,
    /// Requests that went into one transaction.
    pub transaction_requests: Histogram,
    /// One transaction with its commit.
    pub transaction_seconds: Histogram,
    /// Streams of other regions' processes that are open.
    pub streams: IntGauge,
    /// Replicas that wait to be told by others what the store lost.
    pub recovering: IntGauge,
    behind: IntGaugeVec,
    /// Shows of other regions that are kept folded for readers.
    pub copies: IntGauge,
    /// Losses of the store's tail that this process noticed.
    pub store_lost: IntCounter,
}

impl ReplicaMetrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let store_lost = IntCounter::new(
            "marquee_store_lost_total",
            "Times that this process found its Postgres to have gone back in time.",
        )?;
        registry.register(Box::new(store_lost.clone()))?;
        let behind = IntGaugeVec::new(
            Opts::new(
                "marquee_replicas_behind",
                "Shows of which this region lacks something, by who owns them.",
            ),
            &["owner"],
        )?;
        registry.register(Box::new(behind.clone()))?;
        Ok(Self {
            answers: counters("marquee_replica_answers_total", "Answers to leaders, by kind.", "answer")?,
            transactions: counters(
                "marquee_replica_transactions_total",
                "Transactions of replicas, by result.",
                "result",
            )?,
            refused: counters(
                "marquee_replica_messages_refused_total",
                "Other regions' messages that were not taken, by reason.",
                "reason",
            )?,
            transaction_requests: histogram(
                "marquee_replica_transaction_requests",
                "Requests that went into one transaction.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
            )?,
            transaction_seconds: histogram(
                "marquee_replica_transaction_duration_seconds",
                "One transaction of replicas with its commit.",
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            )?,
            streams: gauge("marquee_replica_streams", "Streams of other regions' processes that are open.")?,
            recovering: gauge(
                "marquee_replicas_recovering",
                "Shows whose replica waits to be told by others what the store lost.",
            )?,
            behind,
            copies: gauge(
                "marquee_replica_copies",
                "Shows of other regions that are kept in memory for readers.",
            )?,
            store_lost,
        })
    }

    pub fn answered(&self, answer: &Answer) {
        let kind = match answer {
            Answer::Promise { .. } => "promise",
            Answer::Appended { .. } => "appended",
            Answer::Mismatch { .. } => "mismatch",
            Answer::Refused { .. } => "refused",
            Answer::Entries { .. } => "entries",
            Answer::Reported { .. } => "reported",
            Answer::Unable(Unable::NotReplica) => "not_replica",
            Answer::Unable(Unable::Recovering) => "recovering",
            Answer::Unable(Unable::Malformed) => "malformed",
            Answer::Unable(Unable::Contradiction) => "contradiction",
            Answer::Unable(Unable::Unknown) => "unknown",
        };
        self.answers.with_label_values(&[kind]).inc();
    }

    pub fn behind(&self, owner: &str, shows: usize) {
        self.behind.with_label_values(&[owner]).set(i64::try_from(shows).unwrap_or(i64::MAX));
    }

    /// None: nobody has said so yet.
    #[cfg(test)]
    pub fn count_behind(&self, owner: &str) -> Option<i64> {
        use prometheus::core::Collector;
        let told = self
            .behind
            .collect()
            .iter()
            .flat_map(|family| family.get_metric().to_vec())
            .any(|metric| metric.get_label().iter().any(|label| label.value() == owner));
        told.then(|| self.behind.with_label_values(&[owner]).get())
    }

    pub fn transactions(&self, result: &str) {
        self.transactions.with_label_values(&[result]).inc();
    }

    #[cfg(test)]
    pub fn count_refused(&self, reason: &str) -> u64 {
        self.refused.with_label_values(&[reason]).get()
    }

    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}
