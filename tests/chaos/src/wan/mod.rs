//! The wide-area network between places: who may reach whom, after what delay. The rules are [`queue`]'s; packets go
//! by TUN devices between network namespaces ([`tun`]), or, where there are none, connections through proxies on
//! loopback ([`proxy`]).

mod caller;
pub mod proxy;
mod queue;
pub mod tun;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use queue::{Link, Links};

/// A handle on the links and on what passed them.
#[derive(Clone)]
pub struct Wan(Arc<Inner>);

struct Inner {
    links: Mutex<Links>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Wan {
    pub fn new(links: Links) -> Self {
        Self(Arc::new(Inner {
            links: Mutex::new(links),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    pub fn change(&self, change: impl FnOnce(&mut Links)) {
        change(&mut self.0.links.lock().expect("no code panics while holding it"));
    }

    /// How one direction is now.
    pub fn link(&self, from: usize, to: usize) -> Option<Link> {
        self.0.links.lock().expect("no code panics while holding it").get(from, to).copied()
    }

    /// Notes whether a packet went on its way.
    fn count(&self, sent: bool) {
        let counter = if sent { &self.0.passed } else { &self.0.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Packets that passed, and that were lost or met a cut.
    pub fn counts(&self) -> (u64, u64) {
        (self.0.passed.load(Ordering::Relaxed), self.0.dropped.load(Ordering::Relaxed))
    }
}
