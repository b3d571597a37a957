//! Two processes of a region on a real Postgres and a real Redis: who follows sees what is committed, leads
//! only when asked to change something, and goes on without Redis, with a gap, and without the leader.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use axum::body::Body;
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::app::App;
use crate::host::Answer;
use crate::host::tests::{database, owned_by, process_with, show, wish};
use crate::live::wire::letter;
use crate::testing::until;

/// A private Redis that keeps nothing on disk; ended when dropped.
struct Redis {
    child: Child,
    addr: SocketAddr,
}

impl Redis {
    async fn start(addr: Option<SocketAddr>) -> Self {
        let free = || common::loopback::unused_address().unwrap();
        let addr = addr.unwrap_or_else(free);
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
            // `nobody`: a server needs no rights.
            std::os::unix::process::CommandExt::uid(&mut command, 65534);
        }
        let redis = Self { child: command.spawn().expect("redis-server is installed"), addr };
        until("redis answers", || async { redis.command(&["PING"]).await.is_some() }).await;
        redis
    }

    fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// None where it does not answer.
    async fn command(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let ask = async {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let mut command = redis::cmd(words[0]);
            words[1..].iter().for_each(|word| {
                command.arg(*word);
            });
            command.query_async(&mut connection).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two processes; the first leads a show of eight seats, and has claimed it.
struct Region {
    leader: App,
    follower: App,
    show: ShowId,
    redis: Redis,
    url: String,
    _postgres: migrations::testing::TestPostgres,
}

impl Region {
    async fn start() -> Self {
        let (postgres, url) = database(false).await;
        let redis = Redis::start(None).await;
        let leader = process_with(&url, 2, &redis.url()).await;
        let follower = process_with(&url, 3, &redis.url()).await;
        let show = show(&leader).await;
        owned_by(&follower, show, "eu", 1);
        let region = Self { leader, follower, show, redis, url, _postgres: postgres };
        region.claimed().await;
        until("the follower listens", || async { region.follower.metrics.relay.up.get() == 1 }).await;
        region
    }

    async fn claimed(&self) {
        let name = name_of(self.show);
        until("a claim", || async {
            matches!(self.redis.command(&["GET", &name]).await, Some(redis::Value::BulkString(_)))
        })
        .await;
    }

    async fn reserve(&self, app: &App, seat: &str) {
        let (_, answer) = app.hosts.ask(self.show, wish(self.show, seat, None)).await.unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{seat}: {answer:?}");
    }

    /// The seats as letters, as a reader of this process sees them.
    async fn seats(&self, app: &App) -> String {
        let live = app.live(self.show).await.unwrap();
        let changes = live.statuses();
        changes.into_iter().map(letter).collect()
    }

    async fn sees(&self, app: &App, expected: &str) {
        until(expected, || async { self.seats(app).await == expected }).await;
    }

    fn follows(&self, app: &App) -> bool {
        app.hosts.live(self.show).is_none()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_and_takes_no_lead() {
    let region = Region::start().await;
    region.reserve(&region.leader, "A1").await;
    assert_eq!(region.seats(&region.follower).await, "hfffffff");
    let live = region.follower.live(region.show).await.unwrap();
    let stream = live.watch(None, false).unwrap().stream(region.follower.metrics.clone());
    let mut stream = Body::new(stream).into_data_stream();
    let mut heard = async || -> Value {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap();
        let text = String::from_utf8(chunk.unwrap().unwrap().to_vec()).unwrap();
        serde_json::from_str(text.split("data: ").nth(1).unwrap()).unwrap()
    };
    assert_eq!(heard().await["seats"].as_array().unwrap().len(), 8);
    for seat in ["A2", "B4"] {
        region.reserve(&region.leader, seat).await;
        let change = heard().await;
        assert_eq!(change["seats"][0]["seat"], seat, "{change}");
        assert_eq!(change["seq"], region.leader.live(region.show).await.unwrap().seq());
    }
    assert!(region.follows(&region.follower) && !region.follows(&region.leader));
    assert!(region.follower.metrics.relay.received.get() > 0);
    assert_eq!(region.follower.metrics.relay.copies.get(), 1);

    // A command leads, and the one that led learns it from Redis and follows; its reader sees all the same.
    region.reserve(&region.follower, "B1").await;
    until("the old leader follows", || async {
        region.seats(&region.leader).await == "hhffhffh" && region.follows(&region.leader)
    })
    .await;
    region.reserve(&region.follower, "B2").await;
    region.sees(&region.leader, "hhffhhfh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_message_is_read_from_the_journal() {
    let region = Region::start().await;
    assert_eq!(region.seats(&region.follower).await, "ffffffff");
    let copy = region.follower.live(region.show).await.unwrap();
    // What the leader tells does not arrive: nobody follows, as far as it knows.
    let led = region.leader.hosts.live(region.show).unwrap();
    led.publisher().want(false);
    region.reserve(&region.leader, "A1").await;
    let before = region.follower.metrics.relay.gaps.get();
    // A beat, or the next change, shows that something is missing.
    region.sees(&region.follower, "hfffffff").await;
    led.publisher().want(false);
    region.reserve(&region.leader, "A2").await;
    led.publisher().want(true);
    region.reserve(&region.leader, "A3").await;
    region.sees(&region.follower, "hhhfffff").await;
    until("gaps are counted", || async { region.follower.metrics.relay.gaps.get() > before }).await;
    // A message of the future: what lies between is read, and only what is committed is shown.
    let inner = region.follower.relay.0.as_ref().unwrap();
    let seats = vec![(7, crate::show::SeatStatus::Held)];
    let later = Message::Delta(Delta { after: 90, seq: 91, at: Timestamp::now(), seats });
    region.redis.command(&["PUBLISH", &name_of(region.show), &later.write()]).await.unwrap();
    region.reserve(&region.leader, "A4").await;
    region.sees(&region.follower, "hhhhffff").await;
    assert!(Arc::ptr_eq(&copy, &region.follower.live(region.show).await.unwrap()), "still the same copy");
    assert_eq!(inner.copies().len(), 1);
    assert!(region.follows(&region.follower));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_copies_read_the_journal_and_go_on_when_it_is_back() {
    let mut region = Region::start().await;
    assert_eq!(region.seats(&region.follower).await, "ffffffff");
    let addr = region.redis.addr;
    region.redis.kill();
    region.reserve(&region.leader, "A1").await;
    region.sees(&region.follower, "hfffffff").await;
    assert!(region.follows(&region.follower), "its copy reads the journal");
    // Who has no copy yet leads, and the leader takes it back by its next command; who may not lead reads
    // the journal.
    let fourth = process_with(&region.url, 4, &region.redis.url()).await;
    owned_by(&fourth, region.show, "eu", 1);
    assert_eq!(region.seats(&fourth).await, "hfffffff");
    assert!(!region.follows(&fourth) && fourth.metrics.relay.fallback.get() > 0);
    let third = process_with(&region.url, 1, &region.redis.url()).await;
    owned_by(&third, region.show, "eu", 1);
    third.relay.follow_journal(region.show).await.unwrap();
    assert_eq!(region.seats(&third).await, "hfffffff");
    assert!(region.follows(&third));
    region.reserve(&region.leader, "A2").await;
    region.sees(&region.follower, "hhffffff").await;

    region.redis = Redis::start(Some(addr)).await;
    region.claimed().await;
    until("all listen again", || async {
        [&region.leader, &region.follower, &third, &fourth].iter().all(|app| app.metrics.relay.up.get() == 1)
    })
    .await;
    region.reserve(&region.leader, "A3").await;
    region.sees(&region.follower, "hhhfffff").await;
    region.sees(&third, "hhhfffff").await;
    let heard = || third.metrics.relay.received.get() > 0;
    until("the third hears the leader", || async { heard() }).await;
    region.reserve(&region.leader, "B4").await;
    for app in [&region.follower, &third, &fourth] {
        region.sees(app, "hhhffffh").await;
        assert!(region.follows(app), "a reader takes no lead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_gone_a_reader_leads() {
    let region = Region::start().await;
    region.reserve(&region.leader, "A1").await;
    assert_eq!(region.seats(&region.follower).await, "hfffffff");
    let live = region.follower.live(region.show).await.unwrap();
    let watch = live.watch(None, false).unwrap().stream(region.follower.metrics.clone());
    // A process that is killed renews nothing.
    region.leader.stop.cancel();
    let ends = Body::new(watch).into_data_stream().count();
    tokio::time::timeout(Duration::from_secs(20), ends).await.expect("the stream ends");
    until("the reader leads", || async {
        region.seats(&region.follower).await == "hfffffff" && !region.follows(&region.follower)
    })
    .await;
}
