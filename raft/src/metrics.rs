//! What a voter tells Prometheus.

use openraft::ServerState;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::proposals::Unsettled;
use crate::state::{Answer, RegionState};
use crate::types::RaftMetrics;

#[derive(Clone)]
pub struct Metrics {
    /// Whether this voter leads.
    pub is_leader: IntGauge,
    /// Whether this voter knows a leader that it has heard of lately.
    pub has_leader: IntGauge,
    /// The current term.
    pub term: IntGauge,
    /// Changes of the leader that this voter has seen.
    pub leader_changes_total: IntCounter,
    /// The last entry in this voter's log.
    pub last_log_index: IntGauge,
    /// The last entry applied to this voter's state.
    pub applied_index: IntGauge,
    /// On the leader, the time since a quorum last answered it; else 0.
    pub quorum_ack_age_seconds: Gauge,
    /// Commands by what became of them: committed, refused, not_leader, unknown.
    pub proposals_total: IntCounterVec,
    /// From proposal to commit, by log entry.
    pub commit_duration_seconds: Histogram,
    /// Shows in the registry.
    pub shows: IntGauge,
    /// On the leader: changes of a show's owner or epoch, by reason: created, moved, drained, home, lost, store_lost,
    /// replicas.
    pub owner_changes: IntCounterVec,
    /// 1 for the state that a region is in.
    pub region_state: IntGaugeVec,
    /// Calls of somebody whose certificate does not permit them.
    pub callers_refused: IntCounter,
    /// Open sessions of a region's processes.
    pub sessions: IntGaugeVec,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];
        let commit = HistogramOpts::new(
            "marquee_raft_commit_duration_seconds",
            "Time from the proposal of a log entry to its commit, on the leader.",
        );
        let proposals = Opts::new(
            "marquee_raft_proposals_total",
            "Commands proposed here, by result: committed, refused, not_leader, unknown.",
        );
        Ok(Self {
            is_leader: IntGauge::new("marquee_raft_is_leader", "1 when this voter leads.")?,
            has_leader: IntGauge::new(
                "marquee_raft_has_leader",
                "1 when this voter knows a leader that it has heard of lately.",
            )?,
            term: IntGauge::new("marquee_raft_term", "The current raft term.")?,
            leader_changes_total: IntCounter::new(
                "marquee_raft_leader_changes_total",
                "Changes of the raft leader seen by this voter.",
            )?,
            last_log_index: IntGauge::new("marquee_raft_last_log_index", "The last entry in the log.")?,
            applied_index: IntGauge::new("marquee_raft_applied_index", "The last entry applied.")?,
            quorum_ack_age_seconds: Gauge::new(
                "marquee_raft_quorum_ack_age_seconds",
                "On the leader, time since a quorum last answered it; 0 elsewhere.",
            )?,
            proposals_total: IntCounterVec::new(proposals, &["result"])?,
            commit_duration_seconds: Histogram::with_opts(commit.buckets(buckets))?,
            shows: IntGauge::new("marquee_registry_shows", "Shows in the ownership registry.")?,
            owner_changes: IntCounterVec::new(
                Opts::new(
                    "marquee_registry_owner_changes_total",
                    "Changes of a show's owner or epoch that this voter led to, by reason.",
                ),
                &["reason"],
            )?,
            callers_refused: IntCounter::new(
                "marquee_registry_refused_callers_total",
                "Calls of somebody whose certificate does not permit them.",
            )?,
            region_state: IntGaugeVec::new(
                Opts::new("marquee_registry_region_state", "1 for the state that a region is in."),
                &["target_region", "state"],
            )?,
            sessions: IntGaugeVec::new(
                Opts::new("marquee_registry_sessions", "Open sessions of a region's processes."),
                &["target_region"],
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) {
        let all: [Box<dyn Collector>; 14] = [
            Box::new(self.is_leader.clone()),
            Box::new(self.has_leader.clone()),
            Box::new(self.term.clone()),
            Box::new(self.leader_changes_total.clone()),
            Box::new(self.last_log_index.clone()),
            Box::new(self.applied_index.clone()),
            Box::new(self.quorum_ack_age_seconds.clone()),
            Box::new(self.proposals_total.clone()),
            Box::new(self.commit_duration_seconds.clone()),
            Box::new(self.shows.clone()),
            Box::new(self.owner_changes.clone()),
            Box::new(self.region_state.clone()),
            Box::new(self.callers_refused.clone()),
            Box::new(self.sessions.clone()),
        ];
        for collector in all {
            // A second voter in one process (tests) finds the first one's there.
            let _ = registry.register(collector);
        }
    }

    pub fn proposed(&self, outcome: &Result<Answer, Unsettled>) {
        let result = match outcome {
            Ok(Answer::Refused { .. }) => "refused",
            Ok(_) => "committed",
            Err(Unsettled::NotLeader) => "not_leader",
            Err(Unsettled::Unknown(_)) => "unknown",
        };
        self.proposals_total.with_label_values(&[result]).inc();
    }

    pub fn set(&self, raft: &RaftMetrics, has_leader: bool, shows: usize) {
        self.is_leader.set((raft.state == ServerState::Leader).into());
        self.has_leader.set(has_leader.into());
        self.term.set(gauge(raft.current_term));
        self.last_log_index.set(gauge(raft.last_log_index.unwrap_or(0)));
        self.applied_index.set(gauge(raft.last_applied.map_or(0, |id| id.index)));
        self.quorum_ack_age_seconds.set(raft.millis_since_quorum_ack.unwrap_or(0) as f64 / 1000.0);
        self.shows.set(gauge(shows as u64));
    }
}

impl Metrics {
    pub fn set_regions(&self, known: &crate::state::Registry) {
        for region in known.regions() {
            let name = region.name.as_str();
            for state in [RegionState::Up, RegionState::Draining, RegionState::Down] {
                let is = i64::from(region.state == state);
                self.region_state.with_label_values(&[name, state.as_str()]).set(is);
            }
            let open = known.sessions().filter(|session| session.region == region.name).count();
            self.sessions.with_label_values(&[name]).set(gauge(open as u64));
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
