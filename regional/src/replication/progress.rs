//! How far each replica has followed.

/// One replica's, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Progress {
    /// The replica holds this leader's log up to here: it said so under this ballot.
    pub matched: u64,
    /// Where the next message begins. Ahead of `matched` while messages are under way.
    pub next: u64,
    pub state: Sending,
    pub last_sent: u64,
    /// The committed mark of the last message.
    pub told: u64,
    /// An answer to what was sent then or later tells that `told` has arrived.
    pub told_since: u64,
    /// The committed mark that has arrived.
    pub knows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sending {
    /// One message at a time, until it is known where the logs part.
    Probing,
    /// Entries follow each other without waiting.
    Streaming,
    /// Entries that memory no longer holds are being read from the own store, after number `next - 1`.
    Loading,
}

impl Progress {
    /// Before anything was heard: probe at `next`.
    pub fn new(next: u64) -> Self {
        Self { matched: 0, next, state: Sending::Probing, last_sent: 0, told: 0, told_since: 0, knows: 0 }
    }

    /// A message leaves that says so much is committed.
    pub fn tell(&mut self, committed: u64, sent: u64) {
        if committed > self.told {
            // Another that left in the same millisecond said less, and its answer looks the same.
            self.told_since = if sent == self.last_sent { sent + 1 } else { sent };
        }
        (self.told, self.last_sent) = (committed, sent);
    }

    /// A message that left at `sent` and reached up to `upto` was answered. A mark counts no further than its message.
    pub fn answered(&mut self, upto: u64, sent: u64) {
        if sent >= self.told_since && upto >= self.told {
            self.knows = self.told;
        }
    }

    pub fn appended(&mut self, upto: u64) {
        self.matched = self.matched.max(upto);
        self.next = self.next.max(self.matched + 1);
        if self.state == Sending::Probing {
            self.state = Sending::Streaming;
        }
    }

    /// Repeats begin behind what is acknowledged; where nothing is, with the leader's first entry.
    pub fn again(&mut self, led: u64) {
        self.next = if self.matched > 0 { self.matched + 1 } else { self.next.min(led.max(1)) };
        self.state = Sending::Probing;
    }
}
