//! The port, as other regions see it; and a store's recovery over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::tls::Tls;
use common::tls::authority::{Authority, Holder};
use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::replicas::link::{self, Receiving, Sending};
use crate::replicas::recovery::{self, Records};
use crate::replicas::server::{self, Means};
use crate::replicas::wire::{self, Heard, Hello, MESSAGE_BYTES_MAX};
use crate::replication::{Term, Unable};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];

/// A region's replicas behind their port.
struct Port {
    url: String,
    pool: Pool,
    store: ReplicaStore,
    standings: Arc<Fixed>,
    _stop: DropGuard,
}

impl Port {
    async fn open(name: &str, pool: Pool) -> Self {
        Self::open_as(name, pool, Tls::plain()).await
    }

    async fn open_as(name: &str, pool: Pool, tls: Tls) -> Self {
        let standing = Standing { epoch: 1_000, member: true, incarnation: 0, disowned: 0 };
        let standings = Arc::new(Fixed { standing: standing.into(), is_new: false });
        let guard = Guard::default();
        let store = store(&pool, standings.clone(), guard);
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let (stop, of) = (CancellationToken::new(), standings.clone());
        let means = Means {
            region: region(name),
            regions: REGIONS.into_iter().map(region).collect(),
            session: crate::session::Session::fixed(1),
            store: store.clone(),
            pool: pool.clone(),
            incarnation: Arc::new(move || of.standing.lock().unwrap().incarnation),
            tls,
            caught_up: Default::default(),
            stop: stop.clone(),
        };
        tokio::spawn(server::serve(incoming, means));
        Self { url, pool, store, standings, _stop: stop.drop_guard() }
    }

    async fn with(&self, hello: Hello) -> anyhow::Result<(Sending, Receiving)> {
        link::open(&Tls::plain(), &self.url, hello).await
    }

    fn refused(&self, reason: &str) -> u64 {
        self.store.metrics().count_refused(reason)
    }
}

fn hello(from: &str, to: &str) -> Hello {
    Hello { from: region(from), to: region(to), session: 7, heard: None }
}

fn some_show() -> ShowId {
    ShowId::new(&region("eu"))
}

fn code(error: &anyhow::Error) -> Code {
    error.downcast_ref::<tonic::Status>().unwrap_or_else(|| panic!("{error:#}")).code()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_claims_another_regions_name_is_refused_and_whoever_has_no_certificate_is_not_heard() {
    let database = crate::testing::Database::start().await;
    let authority = Authority::new().unwrap();
    let of = |name: &str| authority.tls(&Holder::Regional(region(name))).unwrap();
    let port = Port::open_as("eu", database.pool.clone(), of("eu")).await;
    link::open(&of("us"), &port.url, hello("us", "eu")).await.map(drop).unwrap();
    let error = link::open(&of("ap"), &port.url, hello("us", "eu")).await.map(drop).unwrap_err();
    assert_eq!((code(&error), port.refused("stranger")), (Code::InvalidArgument, 1));
    let gateway = authority.tls(&Holder::Gateway(region("us"))).unwrap();
    let error = link::open(&gateway, &port.url, hello("us", "eu")).await.map(drop).unwrap_err();
    assert_eq!((code(&error), port.refused("stranger")), (Code::InvalidArgument, 2));
    // Whoever answers for eu must be eu.
    let error = link::open(&of("us"), &port.url, hello("us", "ap")).await.map(drop).unwrap_err();
    assert!(error.downcast_ref::<tonic::transport::Error>().is_some(), "{error:#}");
    let foreign = Authority::new().unwrap().tls(&Holder::Regional(region("us"))).unwrap();
    for stranger in [foreign, Tls::plain()] {
        assert!(link::open(&stranger, &port.url, hello("us", "eu")).await.is_err());
    }
    assert_eq!(port.refused("stranger"), 2, "strangers do not get as far as to be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_and_counted_and_the_rest_goes_on() {
    let database = crate::testing::Database::start().await;
    let port = Port::open("eu", database.pool.clone()).await;
    for (from, to, reason) in [("us", "ap", "stranger"), ("eu", "eu", "stranger"), ("xx", "eu", "stranger")] {
        let before = port.refused(reason);
        let error = port.with(hello(from, to)).await.map(drop).unwrap_err();
        assert_eq!(
            (code(&error), port.refused(reason)),
            (Code::InvalidArgument, before + 1),
            "{from} to {to}"
        );
    }
    let error = link::open_raw(&port.url, proto::Hello { version: 99, ..hello("us", "eu").into() }).await;
    assert_eq!((code(&error.map(drop).unwrap_err()), port.refused("version")), (Code::InvalidArgument, 1));
    let error =
        link::open_raw(&port.url, proto::Hello { from: "?".into(), ..hello("us", "eu").into() }).await;
    assert_eq!((code(&error.map(drop).unwrap_err()), port.refused("malformed")), (Code::InvalidArgument, 1));

    // In one stream: of what cannot be read the show's leader is told, and others are answered.
    let (sending, mut receiving) = port.with(hello("us", "eu")).await.unwrap();
    let (good, bad) = (some_show(), some_show());
    let (message, _) = append(good, ballot(1, 1, 1), Mark::default(), &["one"], 0);
    let mut broken =
        wire::asked(bad, Request::Append(append(bad, ballot(1, 1, 1), Mark::default(), &["one"], 0).0));
    if let Some(proto::request::Kind::Append(append)) = &mut broken.kind {
        append.entries[0].format = 9;
    }
    let unanswerable = proto::Request { show_id: bytes::Bytes::from_static(b"short"), ..broken.clone() };
    let requests = vec![broken, unanswerable, wire::asked(good, Request::Append(message))];
    sending.raw(proto::Requests { hello: None, requests }).await;
    let mut told = BTreeMap::new();
    while told.len() < 2 {
        told.extend(receiving.next().await.unwrap().into_iter().map(|(show, reply)| (show, reply.answer)));
    }
    assert_eq!(told[&bad], Answer::Unable(Unable::Malformed));
    assert_eq!(told[&good], Answer::Appended { upto: 1, sent: 7 });
    assert_eq!(port.refused("malformed"), 3);
    assert!(receiving.store.unwrap().mark.flushed > 0);

    // One that contradicts itself gets as far as the rules.
    let (mut torn, _) = append(bad, ballot(1, 1, 1), Mark::default(), &["one", "two"], 0);
    torn.entries.remove(0);
    sending.send(vec![(bad, Request::Append(torn))]).await.unwrap();
    assert_eq!(receiving.next().await.unwrap()[0].1.answer, Answer::Unable(Unable::Malformed));

    // Too long: the stream ends, another one is served.
    let show_id = vec![0; MESSAGE_BYTES_MAX + 1].into();
    let requests = vec![proto::Request { show_id, ..proto::Request::default() }];
    sending.raw(proto::Requests { hello: None, requests }).await;
    assert!(receiving.next().await.is_err());
    let (sending, mut receiving) = port.with(hello("us", "eu")).await.unwrap();
    // A second hello, too.
    sending.raw(proto::Requests { hello: Some(hello("us", "eu").into()), requests: vec![] }).await;
    assert_eq!(code(&receiving.next().await.unwrap_err()), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_counted() {
    let database = crate::testing::Database::start().await;
    let port = Port::open("eu", database.pool.clone()).await;
    let (sending, mut receiving) = link::open_wide(&port.url, hello("us", "eu")).await.unwrap();
    let show_id = vec![0; MESSAGE_BYTES_MAX + 1].into();
    let requests = vec![proto::Request { show_id, ..proto::Request::default() }];
    sending.raw(proto::Requests { hello: None, requests }).await;
    assert!(receiving.next().await.is_err());
    crate::testing::until("the count", async || port.refused("oversized") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_remembers_more_than_the_store_is_believed() {
    let database = crate::testing::Database::start().await;
    let port = Port::open("eu", database.pool.clone()).await;
    let (sending, mut receiving) = port.with(hello("us", "eu")).await.unwrap();
    let show = some_show();
    sending.send(vec![(show, Request::Prepare { ballot: ballot(1, 1, 1) })]).await.unwrap();
    receiving.next().await.unwrap();
    let known = receiving.store.unwrap();
    assert!(port.with(Hello { heard: Some(known), ..hello("us", "eu") }).await.is_ok());
    // Of another incarnation nothing follows.
    let mark = guard::StoreMark { flushed: known.mark.flushed + (1 << 30), ..known.mark };
    let other = Some(Heard { incarnation: 5, mark });
    assert!(port.with(Hello { heard: other, ..hello("us", "eu") }).await.is_ok());
    assert_eq!(port.store.guard().lost(), None);
    let further = Some(Heard { incarnation: 0, mark });
    let error = port.with(Hello { heard: further, ..hello("us", "eu") }).await.map(drop).unwrap_err();
    assert_eq!(code(&error), Code::Unavailable);
    assert!(port.store.guard().lost().is_some());
    assert_eq!(port.store.ask(show, Request::Prepare { ballot: ballot(1, 2, 1) }).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_can_tell_what_it_lost_waits_for_its_operators_word() {
    let database = crate::testing::Database::start().await;
    let port = Port::open("ap", database.pool.clone()).await;
    let show = some_show();
    let (message, last) = append(show, ballot(1, 1, 1), Mark::default(), &["one"], 0);
    port.store.ask(show, Request::Append(message)).await.unwrap();
    let recover = |incarnation: u64| {
        *port.standings.standing.lock().unwrap() =
            Standing { epoch: 2, member: true, incarnation, disowned: 0 };
        let stop = CancellationToken::new();
        tokio::spawn(recovery::run(recovery::Means {
            region: region("ap"),
            session: crate::session::Session::fixed(2),
            store: port.store.clone(),
            pool: port.pool.clone(),
            records: Arc::new(FixedRecords { ports: [(region("ap"), port.url.clone())].into(), incarnation }),
            tls: Tls::plain(),
            caught_up: crate::replicas::caught_up::CaughtUp::default(),
            stop: stop.clone(),
        }));
        stop.drop_guard()
    };
    let prepare = async || {
        let told = port.store.ask(show, Request::Prepare { ballot: ballot(2, 1, 1) }).await;
        told.unwrap().reply.answer
    };
    let first = recover(1);
    assert_eq!(prepare().await, Answer::Unable(Unable::Recovering));
    recovery::accept(&port.pool).await.unwrap();
    crate::testing::until("the operator's word is heard", async || {
        matches!(prepare().await, Answer::Promise { head } if head.last == last && head.incarnation == 1)
    })
    .await;
    drop(first);
    // It was for that loss only.
    let _second = recover(2);
    let client = port.pool.get().await.unwrap();
    crate::testing::until("it is looked at", async || {
        port.store.metrics().recovering.get() == 0
            && prepare().await == Answer::Unable(Unable::Recovering)
            && client
                .query_one("SELECT incarnation FROM store_accepted", &[])
                .await
                .is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
}

struct FixedRecords {
    ports: BTreeMap<RegionName, String>,
    incarnation: u64,
}

#[async_trait::async_trait]
impl Records for FixedRecords {
    async fn term(&self, _: ShowId) -> anyhow::Result<Option<Term<Regional>>> {
        let replicas: BTreeSet<RegionName> = self.ports.keys().cloned().collect();
        let incarnation = |name: &RegionName| if *name == region("ap") { self.incarnation } else { 0 };
        let incarnations = replicas.iter().map(|name| (name.clone(), incarnation(name))).collect();
        let (ballot, prior) = (ballot(2, 0, 0), BTreeSet::new());
        Ok(Some(Term { ballot, own: region("ap"), replicas, prior, incarnations }))
    }

    fn processes(&self, region: &RegionName) -> Vec<String> {
        // The first is one that is gone.
        vec!["http://127.0.0.1:1".into(), self.ports[region].clone()]
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_tail_is_told_by_the_others_and_votes_again() {
    let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
    let server = server.await.unwrap();
    let mut ports = BTreeMap::new();
    for name in REGIONS {
        let url = server.migrated(name, Schema::Regional).await;
        ports.insert(region(name), Port::open(name, migrations::pool(&url, 8).unwrap()).await);
    }
    let shows: Vec<ShowId> = (0..150).map(|_| some_show()).collect();
    let b = ballot(1, 1, 1);
    let texts: Vec<String> = (0..5).map(|at| format!("{at}").repeat(1_000)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (at, show) in shows.iter().enumerate() {
        let (message, _) = append(*show, b, Mark::default(), &texts, 0);
        for (name, port) in &ports {
            // What ap lost: everything, some entries, or nothing. A majority held all of it, us not always.
            let held = if *name == region("ap") { at % 6 } else { 5 };
            if held == 0 || (*name == region("us") && at % 4 == 3) {
                continue;
            }
            let entries = message.entries[..held].to_vec();
            let request = Request::Append(Append { entries, ..message.clone() });
            port.store.ask(*show, request).await.unwrap();
        }
    }
    let ap = &ports[&region("ap")];
    for port in ports.values() {
        let incarnation = if std::ptr::eq(port, ap) { 1 } else { 0 };
        *port.standings.standing.lock().unwrap() =
            Standing { epoch: 2, member: true, incarnation, disowned: 0 };
    }
    // Its heads that are gone are heard of by the first message for them.
    for show in &shows {
        let told = ap.store.ask(*show, Request::Prepare { ballot: ballot(2, 1, 1) }).await.unwrap();
        assert_eq!(told.reply.answer, Answer::Unable(Unable::Recovering));
    }
    let stop = CancellationToken::new();
    let urls = ports.iter().map(|(name, port)| (name.clone(), port.url.clone())).collect();
    let means = recovery::Means {
        region: region("ap"),
        session: crate::session::Session::fixed(2),
        store: ap.store.clone(),
        pool: ap.pool.clone(),
        records: Arc::new(FixedRecords { ports: urls, incarnation: 1 }),
        tls: Tls::plain(),
        caught_up: crate::replicas::caught_up::CaughtUp::default(),
        stop: stop.clone(),
    };
    tokio::spawn(recovery::run(means));
    let _stop = stop.drop_guard();
    let deadline = Instant::now() + Duration::from_secs(30);
    for show in &shows {
        let answer = loop {
            let prepare = Request::Prepare { ballot: ballot(2, 1, 1) };
            match ap.store.ask(*show, prepare).await.unwrap().reply.answer {
                Answer::Unable(Unable::Recovering) => {}
                answer => break answer,
            }
            assert!(Instant::now() < deadline, "{show} does not recover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let Answer::Promise { head } = answer else { panic!("{answer:?}") };
        assert_eq!((head.incarnation, head.last.seq), (1, 5));
        // The others have promised what ap may have forgotten.
        for name in ["eu", "us"] {
            let head = ports[&region(name)].store.head(*show).await.unwrap().unwrap();
            assert!(head.promised >= ballot(2, 0, 0), "{name}");
        }
    }
}
