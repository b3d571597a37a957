//! The wide-area network's rules, pure: for each directed pair of places a delay, a loss and whether it is cut;
//! packets go in with the time, and come out when they are due. Packets of one pair never overtake each other
//! while its delay stays as it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Time since the network began.
pub type At = Duration;

/// One direction between two places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub delay: Duration,
    pub loss_per_mille: u32,
    pub cut: bool,
}

impl Link {
    /// Whether what is sent now goes on its way. `chance`: of 1,000, drawn by the caller.
    pub fn takes(&self, chance: u32) -> bool {
        !self.cut && chance >= self.loss_per_mille
    }
}

/// Links by where from and where to.
#[derive(Clone, Debug)]
pub struct Links {
    links: Vec<Vec<Link>>,
}

impl Links {
    pub fn new(places: usize) -> Self {
        Self { links: vec![vec![Link::default(); places]; places] }
    }

    pub fn get(&self, from: usize, to: usize) -> Option<&Link> {
        self.links.get(from)?.get(to)
    }

    pub fn change(&mut self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(from).and_then(|links| links.get_mut(to)) {
            change(link);
        }
    }

    /// Half of the round trip each way.
    pub fn round_trip(&mut self, a: usize, b: usize, time: Duration) {
        for (from, to) in [(a, b), (b, a)] {
            self.change(from, to, |link| link.delay = time / 2);
        }
    }

    /// Whole again; delays stay.
    pub fn heal(&mut self) {
        for link in self.links.iter_mut().flatten() {
            *link = Link { delay: link.delay, ..Link::default() };
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    due: At,
    order: u64,
    to: usize,
    packet: Vec<u8>,
}

/// What is on its way.
#[derive(Debug, Default)]
pub struct Queue {
    order: u64,
    packets: BinaryHeap<Reverse<OnItsWay>>,
}

impl Queue {
    /// Takes a packet. `chance`: of 1,000, drawn by the caller. Answers whether it is on its way.
    pub fn send(&mut self, now: At, link: &Link, to: usize, chance: u32, packet: Vec<u8>) -> bool {
        if !link.takes(chance) {
            return false;
        }
        self.order += 1;
        self.packets.push(Reverse(OnItsWay { due: now + link.delay, order: self.order, to, packet }));
        true
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<At> {
        self.packets.peek().map(|Reverse(packet)| packet.due)
    }

    /// The next that is due by now, and where to.
    pub fn receive(&mut self, now: At) -> Option<(usize, Vec<u8>)> {
        if self.due()? > now {
            return None;
        }
        self.packets.pop().map(|Reverse(packet)| (packet.to, packet.packet))
    }
}

/// Where an IPv4 packet goes.
pub fn destination(packet: &[u8]) -> Option<[u8; 4]> {
    let is_v4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    is_v4.then(|| packet.get(16..20)?.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_packet_takes_half_the_round_trip_and_order_is_kept() {
        let mut links = Links::new(3);
        links.round_trip(0, 1, 80 * MS);
        links.round_trip(0, 2, 20 * MS);
        let mut queue = Queue::default();
        let link = |to| *links.get(0, to).unwrap();
        assert!(queue.send(Duration::ZERO, &link(1), 1, 0, vec![1]));
        assert!(queue.send(Duration::ZERO, &link(1), 1, 0, vec![2]));
        assert!(queue.send(5 * MS, &link(2), 2, 0, vec![3]));
        assert_eq!(queue.due(), Some(15 * MS));
        assert_eq!(queue.receive(14 * MS), None);
        assert_eq!(queue.receive(15 * MS), Some((2, vec![3])));
        assert_eq!(queue.receive(39 * MS), None);
        assert_eq!(queue.receive(40 * MS), Some((1, vec![1])));
        assert_eq!(queue.receive(40 * MS), Some((1, vec![2])));
        assert_eq!(queue.receive(400 * MS), None);
    }

    #[test]
    fn a_cut_is_one_way_loss_is_by_chance_and_both_heal() {
        let mut links = Links::new(2);
        links.round_trip(0, 1, 40 * MS);
        links.change(0, 1, |link| link.cut = true);
        links.change(1, 0, |link| link.loss_per_mille = 50);
        let mut queue = Queue::default();
        assert!(!queue.send(MS, links.get(0, 1).unwrap(), 1, 999, vec![1]));
        assert!(!queue.send(MS, links.get(1, 0).unwrap(), 0, 49, vec![2]));
        assert!(queue.send(MS, links.get(1, 0).unwrap(), 0, 50, vec![3]));
        links.heal();
        assert_eq!(links.get(0, 1), Some(&Link { delay: 20 * MS, ..Link::default() }));
        assert!(links.get(0, 2).is_none() && links.get(2, 0).is_none());
    }

    #[test]
    fn only_whole_ipv4_headers_have_a_destination() {
        let mut packet = vec![0x45; 20];
        packet[16..].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(destination(&packet), Some([10, 77, 0, 3]));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x65;
        assert_eq!(destination(&packet), None);
    }
}
