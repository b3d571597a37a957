//! The registry's state machine: regions, sessions, shows.
//!
//! Invariant: [`Registry::apply`] is a pure function of the state, the log index and the command. It
//! knows no clock, no chance and no configuration, so that every voter that applies the same log holds
//! the same state. Storage, raft and gRPC are elsewhere.

mod command;
mod giving_up;
mod ownership;
mod record;
mod shows;
mod snapshot;

pub use command::{Answer, Command, Format, OpenSession, Proposal, Refusal};
pub use giving_up::at_risk;
pub(crate) use ownership::preference;
pub use record::{Change, RegionRecord, RegionState, SessionRecord, ShowRecord, TicketKey};
pub use shows::ShowCounts;
pub use shows::{ShowTable, TooManyRegions};
pub use snapshot::BadSnapshot;

use std::collections::{BTreeMap, BTreeSet};

use common::{RegionName, ShowId};

/// An open session, and the attempt that opened it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Session {
    #[serde(flatten)]
    record: SessionRecord,
    /// Drawn by the opener; a repeat of the same attempt is answered with the same number.
    attempt: String,
}

/// All the registry knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    regions: BTreeMap<RegionName, RegionRecord>,
    sessions: BTreeMap<u64, Session>,
    /// The highest session number ever drawn; sessions that closed keep theirs for ever.
    last_session: u64,
    shows: ShowTable,
    /// Shows that an operator has moved away from home; they stay where they are until somebody or the loss
    /// of their region moves them again.
    placed: BTreeSet<ShowId>,
}

impl Registry {
    /// Applies the command of log entry `index`. What changed is added to `changes`, in order; a refused
    /// command changes nothing.
    pub fn apply(&mut self, index: u64, command: &Command, changes: &mut Vec<Change>) -> Answer {
        match command {
            Command::OpenSession(open) => self.open_session(index, open, changes),
            Command::CreateShow { id, home, replicas } => self.create_show(*id, home, replicas, changes),
            Command::RegionDown { region } => self.region_down(region, changes),
            Command::RegionUp { region } => self.region_up(region, changes),
            Command::Drain { region } => self.drain(region, changes),
            Command::Undrain { region } => self.undrain(region, changes),
            Command::Move { show, to, if_epoch } => self.move_show(*show, to, *if_epoch, changes),
            Command::ChangeReplicas { show, replicas, if_epoch } => {
                self.change_replicas(*show, replicas, *if_epoch, changes)
            }
            Command::Settled { show, epoch } => self.settled(*show, *epoch, changes),
            Command::StoreLost { region, incarnation } => self.store_lost(region, *incarnation, changes),
            Command::CloseSession { no } => self.close_session(*no, changes),
            Command::Relocate { show, to, if_epoch } => self.relocate(*show, to, *if_epoch, changes),
            Command::GiveUp { region, at_risk } => self.give_up(region, *at_risk, changes),
            Command::Rejoin { show, region, if_epoch } => self.rejoin(*show, region, *if_epoch, changes),
            Command::Batch(commands) => {
                Answer::Batch(commands.iter().map(|c| self.apply(index, c, changes)).collect())
            }
        }
    }

    fn open_session(&mut self, index: u64, open: &OpenSession, changes: &mut Vec<Change>) -> Answer {
        let same_url = |s: &&Session| s.record.http_url == open.http_url;
        if let Some(held) = self.sessions.values().find(|s| same_url(s) && s.attempt == open.attempt) {
            return Answer::Session { no: held.record.no };
        }
        let known = self.regions.get(&open.region);
        let mut region = known.cloned().unwrap_or_else(|| RegionRecord::up(open.region.clone()));
        for key in &open.ticket_keys {
            match region.ticket_keys.iter().find(|k| k.kid == key.kid) {
                None => region.ticket_keys.push(key.clone()),
                Some(held) if held == key => {}
                Some(_) => {
                    let reason = format!("the ticket key `{}` is already another", key.kid);
                    return Answer::refused(Refusal::Unfit, reason);
                }
            }
        }
        if known != Some(&region) {
            changes.push(Change::Region(region.clone()));
            self.regions.insert(open.region.clone(), region);
        }

        let older: Vec<u64> = self.sessions.values().filter(same_url).map(|s| s.record.no).collect();
        for no in older {
            self.sessions.remove(&no);
            changes.push(Change::SessionClosed(no));
        }

        // From the log index, so that it grows with the log; several sessions of one batch share an index.
        let no = index.max(self.last_session + 1);
        self.last_session = no;
        let record = SessionRecord {
            no,
            region: open.region.clone(),
            http_url: open.http_url.clone(),
            grpc_url: open.grpc_url.clone(),
        };
        changes.push(Change::Session(record.clone()));
        self.sessions.insert(no, Session { record, attempt: open.attempt.clone() });
        Answer::Session { no }
    }

    fn close_session(&mut self, no: u64, changes: &mut Vec<Change>) -> Answer {
        if self.sessions.remove(&no).is_some() {
            changes.push(Change::SessionClosed(no));
        }
        Answer::Session { no }
    }

    fn create_show(
        &mut self,
        id: ShowId,
        home: &RegionName,
        replicas: &[RegionName],
        changes: &mut Vec<Change>,
    ) -> Answer {
        if let Some(present) = self.shows.get(id) {
            return Answer::Show(present);
        }
        if !replicas.contains(home) {
            let reason = format!("the home region `{home}` is not among the show's replicas");
            return Answer::refused(Refusal::NotAReplica, reason);
        }
        if self.is_given_up(home) {
            return Answer::refused(Refusal::RegionNotUp, format!("the region `{home}` was given up"));
        }
        let mut record = ShowRecord {
            id,
            home: home.clone(),
            owner: home.clone(),
            epoch: 1,
            replicas: replicas.to_vec(),
            prior: Vec::new(),
        };
        // Who was given up is put in first and taken out again, so that it is taken in when it is back.
        let mut put = self.shows.put(&record);
        record.replicas.retain(|region| !self.is_given_up(region));
        if record.replicas.len() < replicas.len() {
            put = put.and_then(|()| self.shows.put(&record));
        }
        if let Err(error) = put {
            return Answer::refused(Refusal::Unfit, error.to_string());
        }
        changes.push(Change::Show(record.clone()));
        Answer::Show(record)
    }

    pub fn show(&self, id: ShowId) -> Option<ShowRecord> {
        self.shows.get(id)
    }

    /// Up to `limit` shows with ids after `after`, in the order of their ids.
    pub fn shows_after(&self, after: Option<ShowId>, limit: usize) -> Vec<ShowRecord> {
        self.shows.page_after(after, limit)
    }

    pub fn show_count(&self) -> usize {
        self.shows.len()
    }

    pub fn regions(&self) -> impl Iterator<Item = &RegionRecord> {
        self.regions.values()
    }

    pub fn region(&self, name: &RegionName) -> Option<&RegionRecord> {
        self.regions.get(name)
    }

    pub fn knows_region(&self, name: &RegionName) -> bool {
        self.regions.contains_key(name)
    }

    pub fn session(&self, no: u64) -> Option<&SessionRecord> {
        self.sessions.get(&no).map(|s| &s.record)
    }

    /// Whether an operator has put the show where it is.
    pub fn is_placed(&self, show: ShowId) -> bool {
        self.placed.contains(&show)
    }

    /// Looks at up to `limit` shows after `after`, and gives those whose owner and home are `wanted`, or that one
    /// of `back` kept once; and how far it has looked, none at the end.
    pub fn search(
        &self,
        after: Option<ShowId>,
        limit: usize,
        wanted: impl Fn(&RegionName, &RegionName) -> bool,
        back: impl Fn(&RegionName) -> bool,
    ) -> (Vec<ShowRecord>, Option<ShowId>) {
        self.shows.search(after, limit, wanted, back)
    }

    /// Regions that kept the show once, and do not now.
    pub fn past_replicas(&self, show: ShowId) -> Vec<RegionName> {
        self.shows.past(show)
    }

    pub fn sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.values().map(|s| &s.record)
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
