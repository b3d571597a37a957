//! The wide-area network: a thread a place reads its TUN device, one more gives packets out when they are due.
//! What may pass, and when, is [`queue`]'s.

mod queue;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

pub use queue::Links;
use queue::{Queue, destination};
use tappers::Tun;

use crate::rooms::place_at;

/// Longer than any packet: devices carry 1,500 bytes.
const LONGEST: usize = 4096;

/// A handle; the threads live as long as the program.
#[derive(Clone)]
pub struct Wan(Arc<Inner>);

struct Inner {
    began: Instant,
    ways: Mutex<Ways>,
    news: Condvar,
    devices: Vec<Tun>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

struct Ways {
    links: Links,
    queue: Queue,
}

impl Wan {
    /// Between these devices, by place.
    pub fn start(devices: Vec<Tun>, links: Links) -> anyhow::Result<Self> {
        let inner = Arc::new(Inner {
            began: Instant::now(),
            ways: Mutex::new(Ways { links, queue: Queue::default() }),
            news: Condvar::new(),
            devices,
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        for place in 0..inner.devices.len() {
            let inner = inner.clone();
            std::thread::Builder::new().name(format!("wan-{place}")).spawn(move || inner.take_in(place))?;
        }
        let giver = inner.clone();
        std::thread::Builder::new().name("wan".into()).spawn(move || giver.give_out())?;
        Ok(Self(inner))
    }

    pub fn change(&self, change: impl FnOnce(&mut Links)) {
        change(&mut self.0.lock().links);
    }

    /// Packets that passed, and that were lost or met a cut.
    pub fn counts(&self) -> (u64, u64) {
        (self.0.passed.load(Ordering::Relaxed), self.0.dropped.load(Ordering::Relaxed))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().expect("no code panics while holding it")
    }

    fn take_in(&self, from: usize) {
        let mut buffer = [0; LONGEST];
        loop {
            let length = match self.devices[from].recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return crate::say(&format!("the network of place {from} is gone: {error}")),
            };
            let packet = &buffer[..length];
            let Some(to) = destination(packet).and_then(place_at) else { continue };
            let chance = rand::random_range(0..1000);
            let mut ways = self.lock();
            let Some(link) = ways.links.get(from, to).copied() else { continue };
            let first = ways.queue.due();
            let sent = ways.queue.send(self.began.elapsed(), &link, to, chance, packet.to_vec());
            let sooner = ways.queue.due() != first;
            drop(ways);
            let counter = if sent { &self.passed } else { &self.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
            if sooner {
                self.news.notify_one();
            }
        }
    }

    fn give_out(&self) {
        let mut ways = self.lock();
        loop {
            let now = self.began.elapsed();
            if let Some((to, packet)) = ways.queue.receive(now) {
                drop(ways);
                // A place whose device takes no more loses the packet, as on any network.
                if let Some(device) = self.devices.get(to) {
                    let _ = device.send(&packet);
                }
                ways = self.lock();
                continue;
            }
            let waited = match ways.queue.due() {
                Some(due) => self.news.wait_timeout(ways, due.saturating_sub(now)).map(|(ways, _)| ways).ok(),
                None => self.news.wait(ways).ok(),
            };
            let Some(again) = waited else { return };
            ways = again;
        }
    }
}
