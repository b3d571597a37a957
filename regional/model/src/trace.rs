//! Steps in words, for counter-examples.

use std::fmt;

use regional::replication::{Answer, Append, Ballot, Mark, Reply, Request};

use crate::kind::Toy;
use crate::world::{Action, Message};

struct B(Ballot);

impl fmt::Display for B {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0.epoch, self.0.session, self.0.attempt)
    }
}

fn at(mark: &Mark<Toy>) -> String {
    format!("{}@{}", mark.seq, B(mark.ballot))
}

fn append(append: &Append<Toy>) -> String {
    let entries: Vec<String> =
        append.entries.iter().map(|e| format!("{} {:?}", at(&e.mark()), e.payload)).collect();
    let (ballot, prev) = (B(append.ballot), at(&append.prev));
    format!("({ballot}) after {prev}: [{}], committed {}", entries.join(", "), append.committed)
}

fn request(of: &Request<Toy>) -> String {
    match of {
        Request::Prepare { ballot } => format!("Prepare({})", B(*ballot)),
        Request::Append(a) => format!("Append{}", append(a)),
        Request::Extend(a) => format!("Extend{}", append(a)),
        Request::Fetch { ballot, after } => format!("Fetch({}) after {after}", B(*ballot)),
        Request::Report { ballot } => format!("Report({})", B(*ballot)),
    }
}

fn reply(of: &Reply<Toy>) -> String {
    let answer = match &of.answer {
        Answer::Promise { head } => format!("Promise, holds {}", at(&head.last)),
        Answer::Appended { upto, .. } => format!("Appended up to {upto}"),
        Answer::Mismatch { last, committed, .. } => {
            format!("Mismatch, holds {}, committed {committed}", at(last))
        }
        Answer::Refused { promised } => format!("Refused, promised {}", B(*promised)),
        Answer::Entries { entries, .. } => {
            format!("Entries {:?}", entries.iter().map(|e| at(&e.mark())).collect::<Vec<_>>())
        }
        Answer::Reported { head } => format!("Reported, holds {}", at(&head.last)),
        Answer::Unable(why) => format!("Unable: {why:?}"),
    };
    format!("({}) {answer}", B(of.ballot))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(Message::Ask { from, to, request: r }) => {
                write!(f, "{from} to {to}: {}", request(r))
            }
            Self::Deliver(Message::Say { from, to, reply: r }) => write!(f, "{from} to {to}: {}", reply(r)),
            other => write!(f, "{other:?}"),
        }
    }
}
