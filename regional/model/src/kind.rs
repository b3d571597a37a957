//! The smallest payloads that can break an invariant.

use regional::replication::{Ballot, Kind, Rule, Rules};

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    Led,
    /// A request with idempotency key `key` takes `seat`.
    Take {
        key: u8,
        seat: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toy;

/// All rules but one, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broken(pub Option<Rule>);

impl Rules for Broken {
    fn holds(&self, rule: Rule) -> bool {
        self.0 != Some(rule)
    }
}

impl Kind for Toy {
    type Region = u8;
    type Payload = Thing;
    type Digest = u64;
    type Rules = Broken;

    fn chain(before: &u64, seq: u64, ballot: Ballot, thing: &Thing) -> u64 {
        let thing = match thing {
            Thing::Led => 0,
            Thing::Take { key, seat } => 1 + u64::from(*key) * 256 + u64::from(*seat),
        };
        let parts = [seq, ballot.epoch, ballot.session, ballot.attempt, thing];
        // FNV-1a over words: the model's few entries do not collide.
        parts
            .iter()
            .fold(before ^ 0xcbf2_9ce4_8422_2325, |hash, part| (hash ^ part).wrapping_mul(0x0100_0000_01b3))
    }

    fn weight(_: &Thing) -> usize {
        1
    }
}
