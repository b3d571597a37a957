//! Whether a region's journals lack nothing that the others know of: until then one that was down does not count
//! as up, and its shows do not come home.
//!
//! Every region compares the shows that it owns with what the others hold ([`super::compare`]), and so tells them
//! what they lack. What was told before a region was lost says nothing of what came to be meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use common::RegionName;
use raft::client::{RegionState, RegistryView};

/// What the others told. Pure.
#[derive(Debug, Default)]
struct Told {
    /// How often all that was told before came to count no more.
    doubts: u64,
    was_down: bool,
    /// How many shows each said to be lacking, the last time.
    lacking: BTreeMap<RegionName, usize>,
}

impl Told {
    /// The region was lost, or may have been.
    fn doubt(&mut self) {
        self.doubts += 1;
        self.lacking.clear();
    }

    /// By the registry; what comes to be while a region is down, it is told of once more at its end.
    fn is_down(&mut self, is_down: bool) {
        if is_down && !self.was_down {
            self.doubt();
        }
        self.was_down = is_down;
    }

    /// A comparison that began after so many doubts has ended.
    fn compared(&mut self, by: &RegionName, doubts: u64, lacking: usize) {
        if doubts == self.doubts {
            self.lacking.insert(by.clone(), lacking);
        }
    }

    /// Whether each of `others` has compared and found nothing.
    fn is_nothing_lacking(&self, mut others: impl Iterator<Item = RegionName>) -> bool {
        others.all(|other| self.lacking.get(&other) == Some(&0))
    }
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct CaughtUp(Arc<Inner>);

struct Inner {
    /// The store lost nothing that was not brought back (R5).
    is_whole: AtomicBool,
    told: Mutex<Told>,
    /// None: nobody else is there to be asked.
    others: Option<(RegionName, RegistryView)>,
}

impl Default for CaughtUp {
    /// Of a region alone.
    fn default() -> Self {
        Self::of(None)
    }
}

impl CaughtUp {
    /// Of this region among those of the registry.
    pub fn among(own: RegionName, view: RegistryView) -> Self {
        Self::of(Some((own, view)))
    }

    fn of(others: Option<(RegionName, RegistryView)>) -> Self {
        Self(Arc::new(Inner { is_whole: AtomicBool::new(true), told: Mutex::default(), others }))
    }

    pub fn set_whole(&self, is_whole: bool) {
        self.0.is_whole.store(is_whole, Ordering::Relaxed);
    }

    /// The registry has told the region's state.
    pub fn heard(&self, state: RegionState) {
        self.told().is_down(state == RegionState::Down);
    }

    /// The registry has not heard of this process for long.
    pub fn doubt(&self) {
        self.told().doubt();
    }

    /// A comparison begins; to be given back at its end.
    pub fn begin(&self) -> u64 {
        self.told().doubts
    }

    pub fn compared(&self, by: &RegionName, begun: u64, lacking: usize) {
        self.told().compared(by, begun, lacking);
    }

    pub fn get(&self) -> bool {
        let others = self.0.others.as_ref().map(|(own, view)| {
            let regions = view.regions().into_iter().filter(|r| r.state != RegionState::Down);
            regions.map(|region| region.name).filter(|name| name != own).collect::<Vec<_>>()
        });
        let others = others.unwrap_or_default();
        self.0.is_whole.load(Ordering::Relaxed) && self.told().is_nothing_lacking(others.into_iter())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().expect("no code panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::region;

    #[test]
    fn a_region_has_caught_up_when_all_others_say_so_after_it_was_lost() {
        let [eu, us] = ["eu", "us"].map(region);
        let mut told = Told::default();
        let has = |told: &Told, others: &[&RegionName]| {
            told.is_nothing_lacking(others.iter().map(|other| (*other).clone()))
        };
        assert!(has(&told, &[]) && !has(&told, &[&eu]), "nobody has said so yet");
        told.compared(&eu, 0, 0);
        assert!(has(&told, &[&eu]) && !has(&told, &[&eu, &us]));
        told.compared(&us, 0, 3);
        assert!(!has(&told, &[&eu, &us]));
        told.compared(&us, 0, 0);
        assert!(has(&told, &[&eu, &us]));

        // It is lost; a comparison that began before ends only now.
        let begun = told.doubts;
        told.is_down(true);
        told.compared(&us, begun, 0);
        assert!(!has(&told, &[&us]));
        let begun = told.doubts;
        told.is_down(true);
        told.compared(&us, begun, 0);
        assert!(has(&told, &[&us]), "being down is told again and again, and is one loss");
        told.is_down(false);
        assert!(has(&told, &[&us]));
        told.doubt();
        assert!(!has(&told, &[&us]));
    }

    #[test]
    fn alone_it_lacks_what_its_own_store_lost() {
        let caught_up = CaughtUp::default();
        assert!(caught_up.get());
        caught_up.set_whole(false);
        assert!(!caught_up.clone().get());
    }
}
