//! How often each thing happened. The short form asserts that each that can happen did: what was never
//! reached was never tested.

use std::collections::BTreeMap;
use std::fmt::Debug;

use regional::replication::{Answer, Request, Unable, Why};
use regional::show::{Event as Happened, Refusal};

use crate::kind::Sim;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    fixed: BTreeMap<&'static str, u64>,
    named: BTreeMap<String, u64>,
}

/// The name of a variant: what stands before its fields.
pub fn first_word(of: &impl Debug) -> String {
    let text = format!("{of:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl Counts {
    pub fn add(&mut self, what: &'static str) {
        *self.fixed.entry(what).or_default() += 1;
    }

    fn add_named(&mut self, what: String) {
        *self.named.entry(what).or_default() += 1;
    }

    pub fn refusal(&mut self, refusal: &Refusal) {
        self.add_named(format!("refusal: {}", first_word(refusal)));
    }

    pub fn happened(&mut self, event: &Happened) {
        self.add_named(format!("event: {}", first_word(event)));
    }

    /// The registry's refusals are sentences; regions and epochs in them are left out.
    pub fn refused(&mut self, reason: &str) {
        let words = reason.split_whitespace().filter(|word| {
            !word.contains('`') && !word.contains('_') && !word.chars().any(|c| c.is_ascii_digit())
        });
        self.add_named(format!("registry refuses: {}", words.collect::<Vec<_>>().join(" ")));
    }

    pub fn request(&mut self, request: &Request<Sim>) {
        self.add(match request {
            Request::Prepare { .. } => "ask: Prepare",
            Request::Append(append) if append.entries.is_empty() => "ask: Append of nothing",
            Request::Append(_) => "ask: Append",
            Request::Extend(_) => "ask: Extend",
            Request::Fetch { .. } => "ask: Fetch",
            Request::Report { .. } => "ask: Report",
        });
    }

    pub fn answer(&mut self, answer: &Answer<Sim>) {
        self.add(match answer {
            Answer::Promise { .. } => "say: Promise",
            Answer::Appended { .. } => "say: Appended",
            Answer::Mismatch { .. } => "say: Mismatch",
            Answer::Refused { .. } => "say: Refused",
            Answer::Entries { .. } => "say: Entries",
            Answer::Reported { .. } => "say: Reported",
            Answer::Unable(Unable::NotReplica) => "say: Unable, NotReplica",
            Answer::Unable(Unable::Recovering) => "say: Unable, Recovering",
            Answer::Unable(Unable::Unknown) => "say: Unable, Unknown",
            Answer::Unable(Unable::Malformed | Unable::Contradiction) => "say: what cannot be",
        });
    }

    pub fn stopped(&mut self, why: &Why) {
        self.add(match why {
            Why::Refused { .. } => "stop: Refused",
            Why::OwnStore => "stop: OwnStore",
            Why::LogMoved => "stop: LogMoved",
            Why::Registry => "stop: Registry",
            Why::Contradiction => "stop: what cannot be",
        });
    }

    pub fn take_in(&mut self, other: &Self) {
        for (what, count) in &other.fixed {
            *self.fixed.entry(what).or_default() += count;
        }
        for (what, count) in &other.named {
            *self.named.entry(what.clone()).or_default() += count;
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.fixed.get(what).or_else(|| self.named.get(what)).copied().unwrap_or(0)
    }

    /// Those that were expected and never came.
    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().filter(|what| self.of(what) == 0).copied().collect()
    }

    /// As a table.
    pub fn lines(&self) -> Vec<String> {
        let fixed = self.fixed.iter().map(|(what, count)| ((*what).to_owned(), *count));
        let mut all: Vec<(String, u64)> =
            fixed.chain(self.named.iter().map(|(what, count)| (what.clone(), *count))).collect();
        all.sort();
        all.into_iter().map(|(what, count)| format!("{count:>10} {what}")).collect()
    }
}

/// Every transition, refusal and fault that the short form must reach.
pub const EXPECTED: &[&str] = &[
    "ask: Prepare",
    "ask: Append",
    "ask: Append of nothing",
    "ask: Extend",
    "ask: Fetch",
    "ask: Report",
    "say: Promise",
    "say: Appended",
    "say: Mismatch",
    "say: Refused",
    "say: Entries",
    "say: Reported",
    "say: Unable, NotReplica",
    "say: Unable, Recovering",
    "stop: Refused",
    "stop: OwnStore",
    "stop: Registry",
    "lead: try",
    "lead: chosen",
    "lead: began",
    "lead: committed",
    "lead: a no waits for a proof",
    "lead: a no was proven",
    "lead: a no was not proven",
    "lead: gave up",
    "recovery: began",
    "recovery: restored",
    "recovery: whole again",
    "process: start",
    "process: session ended",
    "store: unknown, done",
    "store: unknown, not done",
    "store: unknown, done late",
    "store: connection lost",
    "store: went back in time",
    "store: loss noticed",
    "network: lost",
    "network: doubled",
    "network: late",
    "network: cut",
    "network: nobody there",
    "fault: one way",
    "fault: partition",
    "fault: registry out of reach",
    "fault: region cut off",
    "fault: process killed",
    "fault: process paused",
    "fault: store killed",
    "fault: store restored",
    "fault: store slow",
    "fault: region lost",
    "fault: registry away",
    "fault: registry elects",
    "fault: move",
    "fault: drain",
    "fault: replicas",
    "fault: storm",
    "fault: provider away",
    "registry: session",
    "registry: show",
    "registry: region down",
    "registry: region up",
    "registry: drain",
    "registry: undrain",
    "registry: move",
    "registry: relocate",
    "registry: replicas",
    "registry: settled",
    "registry: store lost",
    "registry: refused",
    "registry: away",
    "gateway: not the owner",
    "gateway: waits",
    "gateway: unknown",
    "gateway: unavailable",
    "gateway: unreachable",
    "gateway: broken",
    "gateway: again",
    "gateway: deadline",
    "client: done",
    "client: done before",
    "client: already so",
    "client: refused",
    "client: not done",
    "client: unknown",
    "client: read",
    "client: read, stamped",
    "client: heard nothing",
    "client: twice at once",
    "client: again under its key",
    "provider: charge",
    "provider: refused",
    "provider: find",
    "provider: cancel",
    "provider: refund",
    "provider: webhook",
    "provider: call lost",
    "provider: call late",
    "provider: answer lost",
    "provider: late charge defeated",
    "saga: journaled",
    "saga: stuck",
    "saga: reconciled",
    "saga: refund unknown",
    "saga: given back by hand",
    "saga: left to the reconciler",
    "saga: nothing to do",
    "event: Reserved",
    "event: Lapsed",
    "event: Extended",
    "event: SeatsChanged",
    "event: PaymentStarted",
    "event: PaymentPending",
    "event: PaymentCompleted",
    "event: PaymentFailed",
    "event: PaymentUnclaimed",
    "event: Retaken",
    "event: Canceled",
    "event: RefundStarted",
    "event: RefundCompleted",
    "event: Blocked",
    "event: Unblocked",
    "event: OnSaleChanged",
    "event: ShowCanceled",
    "event: CheckedIn",
    "refusal: SeatsUnavailable",
    "refusal: UnknownSeats",
    "refusal: UnknownCategory",
    "refusal: NoSeats",
    "refusal: NotEnoughSeats",
    "refusal: SingleSeatGap",
    "refusal: CompanionAlone",
    "refusal: DuplicateSeat",
    "refusal: SeatLimit",
    "refusal: AddressLimit",
    "refusal: HoldLimit",
    "refusal: NotOnSale",
    "refusal: UnknownReservation",
    "refusal: UnknownPayment",
    "refusal: UnknownTicket",
    "refusal: ReservationExpired",
    "refusal: WrongState",
    "refusal: PaymentUnderWay",
    "refusal: RefundWindowClosed",
    "refusal: RefundTooLarge",
    "refusal: AlreadyAdmitted",
    "refusal: TicketCanceled",
    "refusal: TicketRefunded",
    "refusal: NonceReused",
    "refusal: KeyReused",
];
