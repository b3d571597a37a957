//! The keys that personal data outside of this service is held under: who gets them, and that they are destroyed.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::time::Duration;

use common::authz::Claims;
use common::personal::{Month, MonthKeys};
use common::proto::feed::feed_client::FeedClient;
use common::proto::feed::update::Update as Kind;
use common::proto::feed::{FollowRequest, GetPersonKeysRequest, MonthKeys as Told};
use common::tls::authority::{Authority, Holder};
use common::tls::{Certificates, Tls, names};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use migrations::Schema;
use migrations::testing::TestPostgres;
use serde_json::json;
use support::{PASSWORD, Service, config, start};
use tonic::transport::Channel;

fn feed(s: &Service) -> FeedClient<Channel> {
    FeedClient::new(Tls::plain().channel(&format!("http://{}", s.config.grpc_listen), "").unwrap())
}

/// The months' keys as a new follower is told them; none within a whole opening.
async fn months(s: &Service, wanted: bool) -> Option<Told> {
    let request = FollowRequest { follower: "test".into(), after: 0, movies: false, month_keys: wanted };
    let mut updates = feed(s).follow(request).await.unwrap().into_inner();
    loop {
        let update = tokio::time::timeout(Duration::from_secs(5), updates.message()).await.unwrap();
        match update.unwrap().unwrap().update.unwrap() {
            Kind::MonthKeys(told) => return Some(told),
            Kind::Heartbeat(_) => return None,
            _ => {}
        }
    }
}

async fn person_keys(s: &Service, ids: &[&str]) -> Vec<(String, Vec<u8>)> {
    let user_ids = ids.iter().map(ToString::to_string).collect();
    let answer = feed(s).get_person_keys(GetPersonKeysRequest { user_ids }).await.unwrap().into_inner();
    answer.keys.into_iter().map(|key| (key.user_id, key.key.to_vec())).collect()
}

fn claims(token: &str) -> Claims {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_a_key_that_its_tokens_carry_until_it_is_deleted() {
    let (postgres, s) = start().await;
    let body = json!({"email": "Zqmail@marquee.example", "username": "zquser", "name": "Zqname", "password": PASSWORD});
    let ann = s.post("/v1/auth/signup", "", body).await.expect(201).text("id");
    let bob = s.sign_up("bob").await;
    s.post("/v1/auth/password/forgot", "", json!({"email": "zqmail@marquee.example"})).await.expect(202);
    let token = s.token("zquser").await;

    let keys = person_keys(&s, &[&ann, &bob, "usr_x", &common::UserId::new().to_string()]).await;
    let of = |id: &str| keys.iter().find(|(user, _)| user == id).unwrap().1.clone();
    assert_eq!((keys.len(), of(&ann).len()), (2, 32));
    assert_ne!(of(&ann), of(&bob));
    let month_keys = MonthKeys::default();
    month_keys.set(&months(&s, true).await.unwrap()).unwrap();
    for token in [&token, &s.token("zquser").await] {
        let claims = claims(token);
        let sealed = claims.pk.clone().unwrap();
        let key = month_keys.from_claim(claims.sub, claims.iat, &sealed).unwrap();
        assert_eq!(key.bytes().to_vec(), of(&ann), "the same at each sign-in");
        let bytes = BASE64URL_NOPAD.decode(sealed.as_bytes()).unwrap();
        assert!(!bytes.windows(16).any(|part| part == &key.bytes()[..16]), "nobody else reads it");
    }

    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let db = pool.get().await.unwrap();
    let traces = async || {
        let select = "SELECT relname::text FROM pg_class
                       WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
        let mut found = Vec::new();
        for table in db.query(select, &[]).await.unwrap() {
            let table: &str = table.get(0);
            let count = format!(r#"SELECT count(*) FROM "{table}" t WHERE t::text ~* 'zq(mail|user|name)'"#);
            if db.query_one(&count, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                found.push(table.to_owned());
            }
        }
        found
    };
    let found = traces().await;
    for table in ["users", "mail_outbox"] {
        assert!(found.iter().any(|name| name == table), "nothing to erase in {table}: {found:?}");
    }
    s.delete("/v1/me", &token).await.expect(204);
    assert_eq!(person_keys(&s, &[&ann, &bob]).await, [(bob.clone(), of(&bob))]);
    let salt = "SELECT count(*) FROM users WHERE person_salt IS NULL AND deleted_at IS NOT NULL";
    assert_eq!(db.query_one(salt, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(traces().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_regional_processes_are_told_keys() {
    let (authority, folder) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let issued = authority.issue(&Holder::Global).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let peer_tls = Certificates {
        ca_file: file("ca.pem", authority.pem()),
        cert_file: file("global.pem", &issued.certificate),
        key_file: file("global.key", &issued.key),
    };
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let s = Service::start(global::Config { peer_tls, ..config(&url) }).await;
    let ann = s.sign_up("ann").await;
    let eu: common::RegionName = "eu".parse().unwrap();
    let as_holder = |holder: Holder| {
        let tls = authority.tls(&holder).unwrap();
        let url = format!("https://{}", s.config.grpc_listen);
        FeedClient::new(tls.channel(&url, names::GLOBAL).unwrap())
    };
    let following =
        |month_keys| FollowRequest { follower: "test".into(), after: 0, movies: false, month_keys };
    let asking = || GetPersonKeysRequest { user_ids: vec![ann.clone()] };

    let mut regional = as_holder(Holder::Regional(eu.clone()));
    assert_eq!(regional.get_person_keys(asking()).await.unwrap().into_inner().keys.len(), 1);
    regional.follow(following(true)).await.unwrap();
    for stranger in [Holder::Gateway(eu.clone()), Holder::Raft(eu)] {
        let mut stranger = as_holder(stranger);
        stranger.follow(following(false)).await.unwrap();
        let refused = [
            stranger.follow(following(true)).await.map(drop).unwrap_err(),
            stranger.get_person_keys(asking()).await.map(drop).unwrap_err(),
        ];
        assert!(refused.iter().all(|status| status.code() == tonic::Code::PermissionDenied), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn months_have_keys_ahead_and_lose_them_some_months_after() {
    let (postgres, s) = start().await;
    let this = u32::from(Month::of(Timestamp::now()).0);
    let told = months(&s, true).await.unwrap();
    let listed: Vec<u32> = told.keys.iter().map(|key| key.month).collect();
    assert_eq!(listed, (this - 3..=this + 36).collect::<Vec<_>>());
    assert_eq!(months(&s, false).await, None, "a follower that does not ask gets none");
    let url = postgres.url("global");
    s.stop().await;

    // Time passes: what was this month is four months ago.
    let pool = migrations::pool(&url, 1).unwrap();
    let db = pool.get().await.unwrap();
    let sealed: Vec<u8> = db
        .query_one(
            "DELETE FROM month_keys WHERE month = $1 RETURNING sealed",
            &[&i32::try_from(this + 36).unwrap()],
        )
        .await
        .unwrap()
        .get(0);
    let old = i32::try_from(this - 4).unwrap();
    db.execute("INSERT INTO month_keys (month, sealed) VALUES ($1, $2)", &[&old, &sealed]).await.unwrap();
    let s = Service::start(config(&url)).await;
    let again = months(&s, true).await.unwrap();
    let listed: Vec<u32> = again.keys.iter().map(|key| key.month).collect();
    assert_eq!(listed, (this - 3..=this + 36).collect::<Vec<_>>());
    let (lasting, new) = (told.keys.len() - 1, again.keys.last().unwrap());
    assert_eq!(again.keys[..lasting], told.keys[..lasting], "the others are the same");
    assert_ne!(new.key, told.keys[lasting].key);
    let left = db.query_one("SELECT count(*) FROM month_keys WHERE sealed = $1", &[&sealed]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0, "destroyed where it was kept");
}
