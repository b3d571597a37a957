//! A region's Postgres: the replicas of all shows, the read models, and a position that rises with every
//! write. It can be killed, and put back to what it was: then entries and promises are forgotten alike.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use regional::replication::memory::Store;
use regional::show::Show;

use crate::event::Ms;
use crate::kind::Sim;

/// What a restart keeps and a backup holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub replicas: BTreeMap<u8, Store<Sim>>,
    /// What the committed part of each journal folds to.
    pub models: BTreeMap<u8, Model>,
    pub position: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub upto: u64,
    pub show: Option<Rc<Show>>,
}

#[derive(Clone, Debug, Default)]
pub struct Database {
    pub content: Content,
    pub is_up: bool,
    /// Rises whenever all connections break.
    pub generation: u32,
    pub backups: VecDeque<(Ms, Content)>,
    /// Until then every transaction takes long.
    pub slow_until: Ms,
}

const BACKUPS: usize = 6;

impl Database {
    pub fn new() -> Self {
        Self { is_up: true, ..Self::default() }
    }

    /// A show that is not known here has an empty head of the first incarnation: where the store was lost
    /// since, nobody here can say whether the show was in it.
    pub fn replica(&mut self, show: u8) -> &mut Store<Sim> {
        self.content.replicas.entry(show).or_insert_with(|| Store::empty(0))
    }

    pub fn crash(&mut self) {
        self.is_up = false;
        self.generation += 1;
    }

    pub fn back_up(&mut self, now: Ms) {
        self.backups.push_back((now, self.content.clone()));
        if self.backups.len() > BACKUPS {
            self.backups.pop_front();
        }
    }

    /// Puts the newest backup back that ends before `position`.
    pub fn put_back(&mut self, position: u64) -> bool {
        let older = self.backups.iter().rposition(|(_, content)| content.position < position);
        let Some((_, content)) = older.and_then(|at| self.backups.get(at)) else { return false };
        self.content = content.clone();
        self.generation += 1;
        // Backups of what is now no longer so are of another life of the store.
        self.backups.clear();
        true
    }

    /// Brings the read models to what is committed here.
    pub fn project(&mut self) -> Result<(), String> {
        for (no, replica) in &self.content.replicas {
            let model = self.content.models.entry(*no).or_default();
            if model.upto >= replica.head.committed {
                continue;
            }
            let from = model.upto;
            let new = replica.entries.iter().skip_while(|entry| entry.seq <= from);
            for entry in new.take_while(|entry| entry.seq <= replica.head.committed) {
                crate::fold::fold_in(&mut model.show, entry)?;
                model.upto = entry.seq;
            }
        }
        Ok(())
    }
}
