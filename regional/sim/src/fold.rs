//! Entries folded into shows that others may share.

use std::rc::Rc;

use regional::replication::Entry;
use regional::show::{Group, Show};

use crate::kind::Sim;

/// Folds one entry into `show`; what others hold of it stays as it is.
pub fn fold_in(show: &mut Option<Rc<Show>>, entry: &Entry<Sim>) -> Result<(), String> {
    let groups = entry.payload.groups();
    match show {
        Some(show) => {
            // Who only began to lead changed nothing that is worth a copy: but the numbers count on.
            Rc::make_mut(show).apply(entry.seq, groups)
        }
        None => {
            let groups: Vec<Group> = groups.iter().map(|group| Group::clone(group)).collect();
            *show = Show::fold(None, entry.seq, &groups)?.map(Rc::new);
            Ok(())
        }
    }
}
