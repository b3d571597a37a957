use common::MovieId;
use common::authz::jwt::{Jwk, SigningKey};
use common::authz::{Actor, Claims, RoleGrant};
use common::ops::Health;
use common::personal::Month;
use common::proto::feed::{Inheritance as WireInheritance, Rule as WireRule, UserVersion};

use super::*;
use crate::movies::store::{self, Known};
use crate::testing::{Database, FakeGlobal, region, until};

fn policy(version: i64, action: &str) -> Kind {
    let rule = |role: &str, action: &str| WireRule {
        role: role.into(),
        region: "*".into(),
        resource: "show".into(),
        action: action.into(),
    };
    let roles = vec![WireInheritance { role: "manager".into(), includes: "employee".into() }];
    Kind::Policy(feed::Policy { version, rules: vec![rule("employee", action)], roles })
}

fn keys(key: &SigningKey) -> Kind {
    let set = JwkSet { keys: vec![Jwk::ed25519(key.public())] };
    Kind::Keys(feed::Keys { jwks: serde_json::to_string(&set).unwrap() })
}

fn movie(id: MovieId, version: i64, title: &str, deleted: bool) -> Kind {
    let movie_id = id.to_string();
    Kind::Movie(feed::Movie { movie_id, title: title.into(), version, deleted, ..feed::Movie::default() })
}

fn in_an_hour() -> i64 {
    Timestamp::now().as_second() + 3600
}

fn session_ended(session: SessionId) -> Kind {
    let who = Some(Who::SessionId(session.to_string()));
    Kind::Revocation(feed::Revocation { who, expires_at: in_an_hour() })
}

fn tokens_void(user: UserId, min_version: i64) -> Kind {
    let who = Some(Who::User(UserVersion { user_id: user.to_string(), min_version }));
    Kind::Revocation(feed::Revocation { who, expires_at: in_an_hour() })
}

fn claims(user: UserId, session: SessionId, ver: i64) -> Claims {
    let now = Timestamp::now().as_second();
    Claims {
        iss: "marquee".into(),
        aud: "marquee".into(),
        sub: user,
        sid: session,
        jti: "1".into(),
        iat: now,
        nbf: now,
        exp: now + 600,
        username: "someone".into(),
        roles: vec![RoleGrant { role: "manager".into(), region: Some(region("eu")) }],
        ver,
        region: None,
        pk: None,
    }
}

fn kept(database: &Database) -> Kept {
    let sealing = SealingKey::from_text("a master key of tests").unwrap();
    Kept { pool: database.pool.clone(), sealing, month_keys: MonthKeys::default() }
}

fn follow_eu(
    database: &Database,
    authority: &Arc<Authority>,
    global: &FakeGlobal,
) -> (Health, CancellationToken) {
    let (health, stop) = (Health::default(), CancellationToken::new());
    let channel = common::tls::Tls::plain().channel(&global.url, "").unwrap();
    let feed = health.needs("feed");
    spawn(kept(database), authority.clone(), channel, &region("eu"), feed, stop.clone());
    (health, stop)
}

async fn position(database: &Database) -> i64 {
    let client = database.pool.get().await.unwrap();
    client.query_one("SELECT position FROM feed_state", &[]).await.unwrap().get(0)
}

async fn reached(database: &Database, wanted: i64) {
    until("the feed's position", || async { position(database).await == wanted }).await;
}

async fn known(database: &Database, id: MovieId) -> Known {
    store::get(&database.pool.get().await.unwrap(), id).await.unwrap()
}

#[tokio::test]
async fn a_region_starts_from_what_it_last_heard() {
    let (database, global) = (Database::start().await, FakeGlobal::start().await);
    let key = SigningKey::generate();
    let (user, session, other) = (UserId::new(), SessionId::new(), SessionId::new());
    let film = MovieId::new();
    global.publish(0, policy(4, "write"));
    global.publish(0, keys(&key));
    global.publish(1, movie(film, 1, "Metropolis", false));
    global.publish(2, session_ended(session));
    global.publish(3, tokens_void(user, 7));
    let authority = Authority::new("marquee");
    load_last(&database.pool, &authority).await.unwrap();
    assert!(!authority.ready(), "nothing was ever heard");
    let (health, stop) = follow_eu(&database, &authority, &global);
    assert!(!health.missing().is_empty());
    reached(&database, 3).await;
    assert!(health.missing().is_empty());
    stop.cancel();
    drop(global);

    // Another process, and nobody to ask.
    let authority = Authority::new("marquee");
    load_last(&database.pool, &authority).await.unwrap();
    assert!(authority.ready());
    let check = |claims: &Claims| authority.authenticate(&key.sign("at+jwt", claims));
    assert!(check(&claims(user, session, 7)).is_err(), "its session has ended");
    assert!(check(&claims(user, other, 6)).is_err(), "its user's rights have changed");
    let actor: Actor = check(&claims(user, other, 7)).unwrap();
    assert!(authority.may(&actor, Some(&region("eu")), "show", "write"), "by inheritance");
    assert!(!authority.may(&actor, Some(&region("us")), "show", "write"));
    assert!(matches!(known(&database, film).await, Known::Yes(m) if m.title == "Metropolis"));
    assert!(age().is_some_and(|age| age < Duration::from_secs(60)));
    let shown = prometheus::gather();
    for name in ["marquee_feed_age_seconds", "marquee_feed_position", "marquee_feed_connected"] {
        assert!(shown.iter().any(|family| family.name() == name), "{name}");
    }
}

#[tokio::test]
async fn a_policy_that_does_not_parse_is_refused_whole_and_the_last_one_holds() {
    let (database, global) = (Database::start().await, FakeGlobal::start().await);
    let (key, user, session) = (SigningKey::generate(), UserId::new(), SessionId::new());
    global.publish(0, policy(4, "write"));
    global.publish(0, keys(&key));
    global.publish(1, session_ended(SessionId::new()));
    let authority = Authority::new("marquee");
    let (_health, stop) = follow_eu(&database, &authority, &global);
    reached(&database, 1).await;
    // Half of it would parse, and would give more than there was.
    let Kind::Policy(mut bad) = policy(5, "refund") else { unreachable!() };
    bad.rules.push(WireRule { role: "employee".into(), region: " ".into(), ..bad.rules[0].clone() });
    global.publish(2, Kind::Policy(bad));
    global.publish(3, session_ended(session));
    reached(&database, 3).await;
    stop.cancel();

    let again = Authority::new("marquee");
    load_last(&database.pool, &again).await.unwrap();
    for authority in [&authority, &again] {
        let token = |session| key.sign("at+jwt", &claims(user, session, 1));
        let actor = authority.authenticate(&token(SessionId::new())).unwrap();
        assert!(authority.may(&actor, Some(&region("eu")), "show", "write"), "the last one holds");
        assert!(!authority.may(&actor, Some(&region("eu")), "show", "refund"), "nothing of the other does");
        assert!(authority.authenticate(&token(session)).is_err(), "what came behind it is known");
    }
}

fn month_keys(months: &[(u32, u8)]) -> Kind {
    let keys =
        months.iter().map(|(month, byte)| feed::MonthKey { month: *month, key: vec![*byte; 32].into() });
    Kind::MonthKeys(feed::MonthKeys { keys: keys.collect() })
}

#[tokio::test]
async fn keys_of_months_outlive_a_restart_sealed_and_are_forgotten_when_they_are_not_told_again() {
    let (database, global) = (Database::start().await, FakeGlobal::start().await);
    let first = kept(&database);
    first.load_month_keys().await.unwrap();
    assert!(first.month_keys.near(Month(1)).is_none(), "nothing was ever heard");
    global.publish(1, month_keys(&[(100, 7), (101, 8)]));
    let follow = |kept: &Kept, global: &FakeGlobal| {
        let (health, stop) = (Health::default(), CancellationToken::new());
        let (channel, feed) =
            (common::tls::Tls::plain().channel(&global.url, "").unwrap(), health.needs("feed"));
        spawn(kept.clone(), Authority::new("marquee"), channel, &region("eu"), feed, stop.clone());
        stop
    };
    let stop = follow(&first, &global);
    reached(&database, 1).await;
    assert_eq!(first.month_keys.of(Month(100)).unwrap().bytes(), &[7; 32]);
    stop.cancel();
    let row = database.pool.get().await.unwrap().query_one("SELECT month_keys FROM feed_state", &[]).await;
    let stored: Vec<u8> = row.unwrap().get(0);
    assert!(!stored.windows(16).any(|bytes| bytes == [7; 16]), "it is sealed");

    // Another process, while nobody can be asked; then a month is over.
    let second = kept(&database);
    second.load_month_keys().await.unwrap();
    assert_eq!(second.month_keys.of(Month(100)).unwrap().bytes(), &[7; 32]);
    global.publish(2, month_keys(&[(101, 8), (102, 9)]));
    let stop = follow(&second, &global);
    reached(&database, 2).await;
    stop.cancel();
    let third = kept(&database);
    third.load_month_keys().await.unwrap();
    for keys in [&second.month_keys, &third.month_keys] {
        assert!(keys.of(Month(100)).is_none());
        assert_eq!(keys.of(Month(102)).unwrap().bytes(), &[9; 32]);
    }
    let sealing = SealingKey::from_text("another key of tests").unwrap();
    assert!(Kept { sealing, ..third }.load_month_keys().await.is_err());
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_was() {
    let (database, global) = (Database::start().await, FakeGlobal::start().await);
    let film = MovieId::new();
    global.publish(1, movie(film, 1, "Metropolis", false));
    let (_, stop) = follow_eu(&database, &Authority::new("marquee"), &global);
    reached(&database, 1).await;
    global.cut();
    global.publish(2, movie(film, 2, "Metropolis, restored", false));
    reached(&database, 2).await;
    assert_eq!(global.asked(), [0, 1]);
    global.publish(3, movie(film, 3, "Metropolis, restored", true));
    // An older message that comes late brings nothing back.
    global.publish(4, movie(film, 2, "Metropolis, restored", false));
    reached(&database, 4).await;
    assert_eq!(known(&database, film).await, Known::Deleted);
    stop.cancel();
}

#[tokio::test]
async fn what_cannot_be_used_does_not_hold_up_the_rest() {
    let (database, global) = (Database::start().await, FakeGlobal::start().await);
    let key = SigningKey::generate();
    let (user, session) = (UserId::new(), SessionId::new());
    global.publish(0, policy(1, "write"));
    global.publish(0, keys(&key));
    global.publish(1, policy(2, " "));
    global.publish(2, Kind::Keys(feed::Keys { jwks: "{".into() }));
    global.publish(3, Kind::Movie(feed::Movie { movie_id: "mov_?".into(), ..feed::Movie::default() }));
    global.publish(4, session_ended(session));
    let authority = Authority::new("marquee");
    let (_, stop) = follow_eu(&database, &authority, &global);
    reached(&database, 4).await;
    stop.cancel();
    for authority in [authority, Authority::new("marquee")] {
        load_last(&database.pool, &authority).await.unwrap();
        assert!(authority.authenticate(&key.sign("at+jwt", &claims(user, session, 1))).is_err());
        let actor = authority.authenticate(&key.sign("at+jwt", &claims(user, SessionId::new(), 1))).unwrap();
        assert!(authority.may(&actor, Some(&region("eu")), "show", "write"), "by the last good policy");
    }
}

#[tokio::test]
async fn revocations_are_dropped_when_no_token_can_need_them() {
    let database = Database::start().await;
    let client = database.pool.get().await.unwrap();
    let old = "INSERT INTO feed_revocations (kind, subject, expires_at) VALUES ('session', $1, 1)";
    client.execute(old, &[&SessionId::new().0]).await.unwrap();
    let global = FakeGlobal::start().await;
    global.publish(1, session_ended(SessionId::new()));
    let (_, stop) = follow_eu(&database, &Authority::new("marquee"), &global);
    reached(&database, 1).await;
    let left: i64 = client.query_one("SELECT count(*) FROM feed_revocations", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
    stop.cancel();
}
