//! The state that a show's task decides against: the committed one, and what is under way on top.
//!
//! Invariant: while nothing is under way both say the same; so a show that rests keeps only the committed
//! one, and copies it when somebody asks again.

use std::sync::{Arc, RwLock};

use jiff::Timestamp;

use crate::show::Show;

pub(super) struct Decided {
    ahead: Option<Show>,
    committed: Arc<RwLock<Show>>,
}

impl Decided {
    /// Of a show that has nothing under way.
    pub fn new(committed: Arc<RwLock<Show>>) -> Self {
        Self { ahead: None, committed }
    }

    /// What to decide against, and to apply decisions to.
    pub fn ahead(&mut self) -> &mut Show {
        self.ahead.get_or_insert_with(|| self.committed.read().expect("never poisoned").clone())
    }

    pub fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Gives the copy back; only while nothing is under way.
    pub fn rest(&mut self) {
        self.ahead = None;
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        match &self.ahead {
            Some(show) => show.next_deadline(),
            None => self.committed.read().expect("never poisoned").next_deadline(),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::UserId;

    use super::*;
    use crate::show::tests::Stage;
    use crate::show::{Event, Group};

    #[test]
    fn one_that_rests_goes_on_from_what_is_committed() {
        let mut stage = Stage::new();
        let held = stage.reserve(UserId::new(), &["A3"]).unwrap();
        let committed = Arc::new(RwLock::new(stage.show));
        let mut decided = Decided::new(committed.clone());
        assert_eq!(decided.next_deadline(), committed.read().unwrap().next_deadline());
        let lapsed = Event::Lapsed { reservation: held };
        let group =
            Group { at: stage.now, by: None, key: None, trace: None, from: None, events: vec![lapsed] };
        decided.ahead().apply_group(3, 0, &group).unwrap();
        assert!(decided.is_ahead() && decided.next_deadline().is_none());
        assert!(committed.read().unwrap().next_deadline().is_some(), "what is under way is nobody else's");
        committed.write().unwrap().apply_group(3, 0, &group).unwrap();
        decided.rest();
        assert!(!decided.is_ahead() && decided.next_deadline().is_none());
        assert_eq!(decided.ahead().seq, 3);
    }
}
