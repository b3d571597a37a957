//! Packets between namespaces: a thread a place reads its TUN device, one more gives packets out when they are due.

use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use tappers::Tun;

use super::Wan;
use super::queue::{Queue, destination};
use crate::rooms::place_at;

/// Longer than any packet: devices carry 1,500 bytes.
const LONGEST: usize = 4096;

struct Inner {
    wan: Wan,
    began: Instant,
    queue: Mutex<Queue>,
    news: Condvar,
    devices: Vec<Tun>,
}

/// Between these devices, by place; the threads live as long as the program.
pub fn start(wan: Wan, devices: Vec<Tun>) -> anyhow::Result<()> {
    let (queue, news) = (Mutex::default(), Condvar::new());
    let inner = Arc::new(Inner { wan, began: Instant::now(), queue, news, devices });
    for place in 0..inner.devices.len() {
        let inner = inner.clone();
        std::thread::Builder::new().name(format!("wan-{place}")).spawn(move || inner.take_in(place))?;
    }
    std::thread::Builder::new().name("wan".into()).spawn(move || inner.give_out())?;
    Ok(())
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code panics while holding it")
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
            let Some(link) = self.wan.link(from, to) else { continue };
            let mut queue = self.lock();
            let first = queue.due();
            let sent = queue.send(self.began.elapsed(), &link, to, chance, packet.to_vec());
            let sooner = queue.due() != first;
            drop(queue);
            self.wan.count(sent);
            if sooner {
                self.news.notify_one();
            }
        }
    }

    fn give_out(&self) {
        let mut queue = self.lock();
        loop {
            let now = self.began.elapsed();
            if let Some((to, packet)) = queue.receive(now) {
                drop(queue);
                // A place whose device takes no more loses the packet, as on any network.
                if let Some(device) = self.devices.get(to) {
                    let _ = device.send(&packet);
                }
                queue = self.lock();
                continue;
            }
            let waited = match queue.due() {
                Some(due) => {
                    self.news.wait_timeout(queue, due.saturating_sub(now)).map(|(queue, _)| queue).ok()
                }
                None => self.news.wait(queue).ok(),
            };
            let Some(again) = waited else { return };
            queue = again;
        }
    }
}
