//! Tokens that prove nothing: 401 at every gateway, for what global serves and for what a region serves.

use std::sync::Arc;

use common::authz::jwt::SigningKey;
use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::check_in::part;
use crate::client::list;
use crate::stage::{self, adults};
use crate::world::{World, step};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let (show, customer, paid) = stage::customer_with_ticket(world, "eu").await;
    let genuine = customer.client.token().to_owned();
    let ticket = stage::ticket_tokens(&customer.client, &paid).await.remove("A1").unwrap();
    let published = list(&world.gateway("eu").get("/.well-known/jwks.json").await.ok(200), "keys");
    let tokens = forgeries(&genuine, &ticket, &published);
    for (region, url) in world.run().gateways {
        step(&format!("{} kinds of bad token are refused at {region}", tokens.len()));
        let good = customer.client.at(&url);
        good.get("/v1/auth/verify").await.ok(200);
        for (what, token) in &tokens {
            let forger = good.bearing(token);
            let mut answers = vec![
                forger.get("/v1/auth/verify").await,
                forger.get("/v1/me").await,
                forger.get("/v1/reservations").await,
                forger.get(&format!("/v1/shows/{}/reservations", show.id)).await,
                forger.post_once(&format!("/v1/shows/{}/reservations", show.id), adults(&["B1"])).await,
            ];
            answers.push(forger.call(Method::PUT, "/v1/users/usr_0/roles").json(json!([])).await);
            for answer in answers {
                assert_eq!(answer.code(), 401, "{what}: {answer}");
                answer.problem(401, "invalid-token");
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}: {answer}");
            }
        }
        // A token in another place than the Authorization header is none.
        let nobody = world.gateway(&region);
        let asked = nobody.get(&format!("/v1/me?access_token={genuine}")).await;
        assert_eq!(asked.code(), 401, "{asked}");
        let basic = nobody.get("/v1/me").header("authorization", &format!("Basic {genuine}")).await;
        assert_eq!(basic.code(), 401, "{basic}");
    }
    assert_eq!(stage::seat_map(&customer.client, &show.id).await["B1"], "free");
}

pub fn encode(part: &Value) -> String {
    BASE64URL_NOPAD.encode(part.to_string().as_bytes())
}

pub fn sign(header: &Value, claims: &Value, key: &Ed25519KeyPair) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", BASE64URL_NOPAD.encode(key.sign(message.as_bytes()).as_ref()))
}

pub fn forgeries(genuine: &str, ticket: &str, published: &[Value]) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = genuine.split('.').collect();
    let (header, claims) = (part(genuine, 0), part(genuine, 1));
    let own =
        Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref())
            .unwrap();
    let with = |member: &str, value: Value| {
        let mut other = claims.clone();
        other[member] = value;
        other
    };
    let header_with = |member: &str, value: Value| {
        let mut other = header.clone();
        other[member] = value;
        other
    };
    let key = published.iter().find(|k| k["kid"] == header["kid"]).expect("the key that signed is published");
    let public = BASE64URL_NOPAD.decode(key["x"].as_str().unwrap().as_bytes()).unwrap();
    let hs256 = header_with("alg", json!("HS256"));
    let symmetric = |secret: &[u8]| {
        let message = format!("{}.{}", encode(&hs256), encode(&claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let unsigned = |alg: &str| {
        let header = encode(&header_with("alg", json!(alg)));
        [format!("{header}.{}.", parts[1]), format!("{header}.{}.{}", parts[1], parts[2])]
    };
    let embedded = {
        let public = ring::signature::KeyPair::public_key(&own).as_ref().to_vec();
        let mut header = header.clone();
        header["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(&public)});
        sign(&header, &claims, &own)
    };
    let admin = with("roles", json!([{"role": "admin"}]));
    let mut tokens = vec![
        ("nothing", String::new()),
        ("no token at all", "wrong".to_owned()),
        ("three dots", "...".to_owned()),
        ("a foreign key of its own id", SigningKey::generate().sign("at+jwt", &claims)),
        ("a foreign key under the known id", sign(&header, &claims, &own)),
        ("a foreign key with more roles", sign(&header, &admin, &own)),
        ("a foreign key sent along", embedded),
        ("expired, of a foreign key", sign(&header, &with("exp", json!(1_000_000_000)), &own)),
        ("a longer life under the old signature", {
            format!("{}.{}.{}", parts[0], encode(&with("exp", json!(9_999_999_999_i64))), parts[2])
        }),
        ("more roles under the old signature", format!("{}.{}.{}", parts[0], encode(&admin), parts[2])),
        ("shortened", genuine[..genuine.len() - 10].to_owned()),
        ("no signature", format!("{}.{}", parts[0], parts[1])),
        ("signed with the public key as a secret", symmetric(&public)),
        ("signed with the public key's text as a secret", symmetric(key["x"].as_str().unwrap().as_bytes())),
        ("a ticket", ticket.to_owned()),
        ("very long", "e".repeat(6000)),
    ];
    for alg in ["none", "None", "NONE", ""] {
        tokens.extend(unsigned(alg).map(|token| ("alg none", token)));
    }
    tokens
}
