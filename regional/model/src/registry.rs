//! The registry, as one show sees it. Linearizable: its history is a list, and others know a prefix of it.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub epoch: u64,
    pub owner: u8,
    pub replicas: BTreeSet<u8>,
    pub prior: BTreeSet<u8>,
    /// Of each region's store.
    pub incarnations: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registry {
    /// One record for each change, the present one last.
    pub records: Vec<Record>,
    pub last_session: u64,
}

impl Registry {
    pub fn present(&self) -> &Record {
        &self.records[self.records.len() - 1]
    }

    pub fn session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    /// A change of owner keeps `prior`.
    pub fn moved(&mut self, to: u8) {
        let now = self.present();
        let next = Record { epoch: now.epoch + 1, owner: to, ..now.clone() };
        self.records.push(next);
    }

    /// Refused while another change of the set is not settled.
    pub fn changed_replicas(&mut self, replicas: &BTreeSet<u8>) -> bool {
        let now = self.present();
        if !now.prior.is_empty() || now.replicas == *replicas || !replicas.contains(&now.owner) {
            return false;
        }
        let (replicas, prior) = (replicas.clone(), now.replicas.clone());
        let next = Record { epoch: now.epoch + 1, replicas, prior, ..now.clone() };
        self.records.push(next);
        true
    }

    /// Counts for the present epoch only.
    pub fn settled(&mut self, epoch: u64) {
        let now = self.present();
        if now.epoch == epoch && !now.prior.is_empty() {
            let next = Record { prior: BTreeSet::new(), ..now.clone() };
            self.records.push(next);
        }
    }

    /// A store lost its tail: a new incarnation, and a new epoch.
    pub fn lost(&mut self, region: u8) {
        let mut next = self.present().clone();
        next.epoch += 1;
        next.incarnations[usize::from(region)] += 1;
        self.records.push(next);
    }
}
