//! A voter's configuration.
//!
//! Election timeouts: openraft 0.9 draws its election timeout once a process, so that two voters with
//! near timeouts would split the vote again and again. The group's range is therefore cut into one slice
//! for each voter, by its place among the peers; no two voters can draw the same.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use common::RegionName;
use common::config::check;
use common::telemetry::LogFormat;
use common::tls::Certificates;
use serde::{Deserialize, Serialize};

use crate::liveness::Patience;

/// One voter of the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Never used again for another disk.
    pub id: u64,
    pub region: RegionName,
    /// Where the other voters and the registry's users reach it (gRPC).
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node_id: u64,
    pub region: String,
    /// Holds the log, the vote and the snapshot; belongs to this node id for ever.
    pub data_dir: PathBuf,
    /// gRPC: raft's own messages, the registry and its watch.
    pub listen: String,
    pub ops_listen: String,
    /// Who this voter is to the platform's other processes.
    pub peer_tls: Certificates,
    /// All voters, this one included; the same list on each.
    pub peers: Vec<Peer>,
    /// Exactly one voter of a new group founds it. Harmless later.
    pub bootstrap: bool,
    /// Also the deadline of one append: no less than a round trip and a disk flush.
    pub heartbeat_ms: u64,
    /// The group's range of election timeouts, the same on each voter; see the module's head.
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// A snapshot is built after so many log entries.
    pub snapshot_every_entries: u64,
    /// So many entries stay in the log behind a snapshot, for voters that lag a little.
    pub keep_entries: u64,
    pub liveness: Liveness,
    pub moves: Moves,
    pub log_format: LogFormat,
}

/// How long the registry's leader is patient with those it does not hear. Processes beat twice a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Liveness {
    /// A process whose region has others that are heard.
    pub session_timeout_ms: u64,
    /// A region none of whose processes says that its Postgres takes writes: its shows go elsewhere. Counted from
    /// the new leader's election, but for the region whose voter led before: from its last word.
    pub region_timeout_ms: u64,
    /// The other regions, when the whole platform starts and the first is there.
    pub boot_patience_ms: u64,
    /// A region that was down counts as up when it was well for so long without a break.
    pub steady_ms: u64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { session_timeout_ms: 1500, region_timeout_ms: 3000, boot_patience_ms: 15_000, steady_ms: 3000 }
    }
}

/// Moves that the registry makes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Moves {
    /// Away from a region that drains.
    pub drain_per_sec: u32,
    /// Back home; 0: never.
    pub home_per_sec: u32,
    /// A region's shows come home once it was well for so long without a break.
    pub home_after_ms: u64,
}

impl Default for Moves {
    fn default() -> Self {
        Self { drain_per_sec: 50, home_per_sec: 10, home_after_ms: 30_000 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_id: 0,
            region: String::new(),
            data_dir: PathBuf::new(),
            listen: "127.0.0.1:7400".into(),
            ops_listen: "127.0.0.1:7401".into(),
            peer_tls: Certificates::default(),
            peers: Vec::new(),
            bootstrap: false,
            heartbeat_ms: 200,
            election_min_ms: 500,
            election_max_ms: 1000,
            snapshot_every_entries: 5000,
            keep_entries: 1000,
            liveness: Liveness::default(),
            moves: Moves::default(),
            log_format: LogFormat::default(),
        }
    }
}

/// Processes beat twice a second.
const TWO_BEATS_MS: u64 = 1000;
/// Narrower slices of the election range would not keep two voters apart.
const SLICE_MIN_MS: u64 = 10;

impl common::config::Config for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        check::socket(&mut problems, "listen", &self.listen);
        check::socket(&mut problems, "ops_listen", &self.ops_listen);
        self.peer_tls.problems(&mut problems, &[("listen", &self.listen)]);
        if self.data_dir.as_os_str().is_empty() {
            problems.push("`data_dir` is required".into());
        }
        if self.region.parse::<RegionName>().is_err() {
            problems.push(format!("`region`: {}", common::region::BadRegionName));
        }
        for (i, peer) in self.peers.iter().enumerate() {
            check::url(&mut problems, &format!("peers[{i}].url"), &peer.url);
        }
        if self.peers.iter().map(|p| p.id).collect::<BTreeSet<_>>().len() != self.peers.len() {
            problems.push("`peers`: two have the same id".into());
        }
        match self.peers.iter().find(|p| p.id == self.node_id) {
            None => problems.push("`node_id` is not the id of one of the `peers`".into()),
            Some(own) if own.region.as_str() != self.region => {
                problems.push("`region` is not the one that `peers` gives to this `node_id`".into());
            }
            Some(_) => {}
        }
        if self.heartbeat_ms == 0 || self.election_min_ms < 2 * self.heartbeat_ms {
            problems.push("`election_min_ms` must be at least twice `heartbeat_ms`, and that above 0".into());
        }
        let voters = self.peers.len().max(1) as u64;
        if self.election_max_ms < self.election_min_ms + voters * SLICE_MIN_MS {
            problems.push(format!(
                "`election_max_ms` must be above `election_min_ms` by {SLICE_MIN_MS} for each peer"
            ));
        }
        // So that whoever stands first finds every other voter free of its promise to the lost leader:
        // it stands no sooner than 2 * min, and nobody's promise lasts longer than max.
        if self.election_max_ms > 2 * self.election_min_ms {
            problems.push("`election_max_ms` must be at most twice `election_min_ms`".into());
        }
        let Liveness { session_timeout_ms, region_timeout_ms, boot_patience_ms, steady_ms: _ } =
            self.liveness;
        if session_timeout_ms < TWO_BEATS_MS {
            problems.push("`liveness.session_timeout_ms` must be at least 1000, two beats".into());
        }
        if region_timeout_ms < session_timeout_ms || boot_patience_ms < region_timeout_ms {
            problems.push(
                "`liveness`: `region_timeout_ms` must be at least `session_timeout_ms`, and `boot_patience_ms` \
                 at least that"
                    .into(),
            );
        }
        if self.moves.drain_per_sec == 0 {
            problems.push("`moves.drain_per_sec` must be above 0".into());
        }
        if self.snapshot_every_entries == 0 {
            problems.push("`snapshot_every_entries` must be above 0".into());
        }
        problems
    }
}

impl Config {
    /// This voter's own slice of the group's range, in milliseconds: disjoint from every other's.
    pub fn election_slice_ms(&self) -> (u64, u64) {
        let before = self.peers.iter().filter(|p| p.id < self.node_id).count() as u64;
        let width =
            self.election_max_ms.saturating_sub(self.election_min_ms) / self.peers.len().max(1) as u64;
        let min = self.election_min_ms + before * width;
        (min, min + width)
    }

    /// Without a word from a leader for so long, there is none.
    pub(crate) fn leader_silence(&self) -> Duration {
        Duration::from_millis(2 * self.election_max_ms)
    }

    pub(crate) fn patience(&self) -> Patience {
        let ms = Duration::from_millis;
        Patience {
            session: ms(self.liveness.session_timeout_ms),
            region: ms(self.liveness.region_timeout_ms),
            suspect: ms(TWO_BEATS_MS),
            boot: ms(self.liveness.boot_patience_ms),
            steady: ms(self.liveness.steady_ms),
        }
    }

    pub(crate) fn raft(&self) -> anyhow::Result<openraft::Config> {
        let (election_timeout_min, election_timeout_max) = self.election_slice_ms();
        let config = openraft::Config {
            cluster_name: "marquee-registry".into(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min,
            election_timeout_max,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // Above the snapshot's distance, or a snapshot could leave a voter still lagging.
            replication_lag_threshold: 2 * (self.snapshot_every_entries + self.keep_entries),
            purge_batch_size: (self.keep_entries / 4).max(1),
            snapshot_max_chunk_size: 1 << 20,
            // The last chunk's answer comes after the whole snapshot is on the receiver's disk.
            install_snapshot_timeout: 20_000,
            ..Default::default()
        };
        Ok(config.validate()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Config as _;

    fn config(node_id: u64) -> Config {
        let peers = [(1, "eu"), (2, "us"), (3, "ap")].map(|(id, region)| Peer {
            id,
            region: region.parse().unwrap(),
            url: format!("http://127.0.0.1:{}", 7000 + id),
        });
        let region = peers.iter().find(|p| p.id == node_id).map_or("eu", |p| p.region.as_str()).to_owned();
        let data_dir = "data".into();
        Config { node_id, region, data_dir, peers: peers.to_vec(), ..Default::default() }
    }

    #[test]
    fn every_voter_has_a_slice_of_its_own() {
        let slices = [1, 2, 3].map(|id| config(id).election_slice_ms());
        assert_eq!(slices, [(500, 666), (666, 832), (832, 998)]);
        for id in [1, 2, 3] {
            assert_eq!(config(id).problems(), Vec::<String>::new());
            config(id).raft().unwrap();
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        let problems = |change: fn(&mut Config)| {
            let mut config = config(1);
            change(&mut config);
            config.problems().join("\n")
        };
        assert!(problems(|c| c.node_id = 9).contains("`node_id`"));
        assert!(problems(|c| c.region = "us".into()).contains("`region`"));
        assert!(problems(|c| c.peers[1].id = 1).contains("`peers`"));
        assert!(problems(|c| c.peers[2].url = "nowhere".into()).contains("peers[2].url"));
        assert!(problems(|c| c.election_max_ms = 501).contains("`election_max_ms`"));
        assert!(problems(|c| c.election_max_ms = 5000).contains("at most twice"));
        assert!(problems(|c| c.heartbeat_ms = 500).contains("`heartbeat_ms`"));
        assert!(problems(|c| c.data_dir = PathBuf::new()).contains("`data_dir`"));
    }
}
