//! What goes onto the wire comes off it as it was; what does not fit is refused.

use prost::Message;

use super::*;
use crate::replicas::wire::{self, Asked, Heard, Hello};
use crate::replication::Unable;

fn show() -> ShowId {
    ShowId::new(&region("eu"))
}

fn some_requests(show: ShowId) -> Vec<Request> {
    let (first, mark) = append(show, ballot(1, 2, 3), Mark::default(), &["a", ""], 0);
    let (next, _) = append(show, ballot(2, 1, 9), mark, &["b"], 2);
    vec![
        Request::Prepare { ballot: ballot(4, 5, 6) },
        Request::Append(first.clone()),
        Request::Extend(next.clone()),
        Request::Append(Append { entries: Vec::new(), ..next }),
        Request::Fetch { ballot: ballot(4, 5, 6), after: 17 },
        Request::Report { ballot: ballot(4, 0, 0) },
    ]
}

fn read(message: &proto::Request) -> Result<Asked, wire::BadMessage> {
    proto::Request::decode(message.encode_to_vec().as_slice()).unwrap().try_into()
}

#[test]
fn requests_come_as_they_went() {
    let show = show();
    for request in some_requests(show) {
        let asked = read(&wire::asked(show, request.clone())).unwrap();
        assert_eq!((asked.show, asked.request), (show, Ok(request)));
    }
}

#[test]
fn answers_come_as_they_went() {
    let show = show();
    let (message, last) = append(show, ballot(1, 2, 3), Mark::default(), &["a", "b"], 0);
    let head = Head { incarnation: 3, promised: ballot(2, 2, 2), last: last.clone(), committed: 1 };
    let entries = message.entries;
    let mut answers = vec![
        Answer::Promise { head: head.clone() },
        Answer::Promise { head: Head::empty(0) },
        Answer::Appended { upto: 2, sent: u64::MAX },
        Answer::Mismatch { last: last.clone(), committed: 1, sent: 9 },
        Answer::Refused { promised: Ballot::ARCHIVED },
        Answer::Entries { promised: ballot(2, 2, 2), before: Mark::default(), entries },
        Answer::Entries { promised: ballot(2, 2, 2), before: last, entries: vec![] },
        Answer::Reported { head },
    ];
    use Unable::{Contradiction, Malformed, NotReplica, Recovering, Unknown};
    answers.extend([NotReplica, Recovering, Malformed, Contradiction, Unknown].map(Answer::Unable));
    for answer in answers {
        let reply = Reply { incarnation: 5, ballot: ballot(7, 8, 9), answer };
        assert_eq!(wire::reply(wire::answered(show, reply.clone())), Ok((show, reply)));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let show = show();
    let whole = |change: fn(&mut proto::Request)| {
        let mut message = wire::asked(show, some_requests(show).remove(2));
        change(&mut message);
        read(&message)
    };
    // Nobody can be answered.
    assert!(whole(|m| m.show_id.truncate(15)).is_err());
    assert!(whole(|m| m.ballot = None).is_err());
    assert!(whole(|m| m.ballot.as_mut().unwrap().epoch = u64::MAX).is_err());
    assert!(whole(|m| m.ballot = Some(Ballot::ARCHIVED.into())).is_err());
    // The show's leader is told.
    let alone = |change: fn(&mut proto::Request)| whole(change).unwrap().request.is_err();
    assert!(!alone(|_| ()));
    assert!(alone(|m| m.kind = None));
    fn inner(m: &mut proto::Request) -> &mut proto::Append {
        let Some(proto::request::Kind::Extend(append)) = &mut m.kind else { panic!("an Extend") };
        append
    }
    assert!(alone(|m| inner(m).prev = None));
    assert!(alone(|m| inner(m).prev.as_mut().unwrap().hash.truncate(31)));
    assert!(alone(|m| inner(m).prev.as_mut().unwrap().hash.clear()));
    assert!(alone(|m| inner(m).prev.as_mut().unwrap().seq = 0));
    assert!(alone(|m| inner(m).prev.as_mut().unwrap().seq = i64::MAX.cast_unsigned()));
    assert!(alone(|m| inner(m).committed = u64::MAX));
    assert!(alone(|m| inner(m).entries[0].format = 2));
    assert!(alone(|m| inner(m).entries[0].format = 65_537));
    assert!(alone(|m| inner(m).entries[0].at_micros = i64::MAX));
    assert!(alone(|m| inner(m).entries[0].ballot = None));
}

#[test]
fn a_hello_of_another_version_is_refused() {
    let mark = guard::StoreMark { system: 1, timeline: 2, flushed: 3 };
    let heard = Some(Heard { incarnation: 4, mark });
    let hello = Hello { from: region("eu"), to: region("us"), session: 5, heard };
    let message = proto::Hello::from(hello.clone());
    assert_eq!(Hello::try_from(message.clone()), Ok(hello));
    assert!(Hello::try_from(proto::Hello { version: wire::VERSION + 1, ..message.clone() }).is_err());
    assert!(Hello::try_from(proto::Hello { from: "E U".into(), ..message }).is_err());
}

#[test]
fn the_hash_of_an_entry_is_the_journals() {
    let show = show();
    let entry = Mark::default().next(ballot(1, 2, 3), payload(show, "[]"));
    let hash = crate::journal::chain(&[], show, 1, ballot(1, 2, 3), 1, b"[]");
    assert_eq!(entry.digest.as_slice(), hash);
    let other = Mark::default().next(ballot(1, 2, 3), payload(ShowId::new(&region("eu")), "[]"));
    assert_ne!(entry.digest, other.digest, "an entry is of one show");
}
