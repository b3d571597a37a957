//! The public port against clients that are slow, greedy, mistaken or hostile: bytes on raw sockets. The
//! table in `docs/gateway.md` says the same in words.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use axum::body::Body;
use common::ShowId;
use gateway::Config;
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Fake, Reply, Running, answer, config, eventually, region};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn gateway_of(eu: &Fake, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(&[("eu", eu.url())]).await;
    change(&mut config);
    Running::start(config).await
}

/// Everything that comes back until the gateway closes, or for `patience`.
async fn tell_for(gateway: &Running, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn tell(gateway: &Running, text: &str) -> String {
    tell_for(gateway, text.as_bytes(), Duration::from_secs(10)).await
}

fn statuses(said: &str) -> Vec<&str> {
    said.match_indices("HTTP/1.1 ").map(|(at, _)| &said[at + 9..at + 12]).collect()
}

/// What no request may hide: it is counted at the service behind.
const HIDDEN: &str = "GET /v1/movies?hidden HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn malformed_requests_get_what_the_table_says_and_hide_nothing() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let post = |lines: &str, body: &str| format!("POST /v1/cinemas HTTP/1.1\r\n{lines}\r\n\r\n{body}");
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n");
    let long = "x".repeat(40_000);
    let many: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let smuggled = format!("0\r\n\r\n{HIDDEN}");
    let same_length = HIDDEN.len();
    // (what, bytes, status, word of the answer; empty: without a body)
    let table: Vec<(&str, String, &str, &str)> = vec![
        (
            "both lengths",
            post("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", &smuggled),
            "400",
            "told twice",
        ),
        (
            "both lengths, the other way round",
            post("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", &smuggled),
            "400",
            "told twice",
        ),
        (
            "two lengths that differ",
            post(&format!("Host: a\r\nContent-Length: 0\r\nContent-Length: {same_length}"), HIDDEN),
            "400",
            "",
        ),
        (
            "two lengths alike",
            post("Host: a\r\nContent-Length: 2\r\nContent-Length: 2", "{}"),
            "400",
            "more than one Content-Length",
        ),
        ("a list of lengths", post("Host: a\r\nContent-Length: 2, 2", "{}"), "400", ""),
        ("a signed length", post("Host: a\r\nContent-Length: +2", "{}"), "400", ""),
        ("a negative length", post("Host: a\r\nContent-Length: -1", ""), "400", ""),
        (
            "a length beyond all numbers",
            post("Host: a\r\nContent-Length: 99999999999999999999999", ""),
            "400",
            "",
        ),
        (
            "an encoding that is not chunked",
            post("Host: a\r\nTransfer-Encoding: xchunked", &smuggled),
            "400",
            "",
        ),
        ("chunked not last", post("Host: a\r\nTransfer-Encoding: chunked, identity", &smuggled), "400", ""),
        (
            "an encoding before chunked",
            post("Host: a\r\nTransfer-Encoding: gzip, chunked", &smuggled),
            "400",
            "Transfer-Encoding",
        ),
        (
            "the encoding twice",
            post("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &smuggled),
            "400",
            "Transfer-Encoding",
        ),
        ("a space before the colon", post("Host: a\r\nContent-Length : 5", HIDDEN), "400", ""),
        (
            "an encoding hidden by a vertical tab",
            post("Host: a\r\nTransfer-Encoding: \x0bchunked", &smuggled),
            "400",
            "",
        ),
        (
            "chunked in HTTP/1.0",
            "POST /v1/cinemas HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "400",
            "",
        ),
        ("obsolete folding", get("/v1/movies", "Host: a\r\nX-A: 1\r\n  folded"), "400", ""),
        ("a folded encoding", post("Host: a\r\nTransfer-Encoding:\r\n chunked", &smuggled), "400", ""),
        ("bare LF", "GET /v1/movies HTTP/1.1\nHost: a\n\n".into(), "400", "without CR"),
        (
            "a chunk size that is no number",
            post("Host: a\r\nTransfer-Encoding: chunked", "xyz\r\n{}\r\n0\r\n\r\n"),
            "400",
            "did not arrive whole",
        ),
        (
            "a chunk size beyond all numbers",
            post("Host: a\r\nTransfer-Encoding: chunked", "fffffffffffffffff\r\n{}"),
            "400",
            "did not arrive whole",
        ),
        (
            "a chunk longer than told",
            post("Host: a\r\nTransfer-Encoding: chunked", &format!("2\r\n{{}}xx0\r\n\r\n{HIDDEN}")),
            "400",
            "did not arrive whole",
        ),
        (
            "a chunk size with a sign",
            post("Host: a\r\nTransfer-Encoding: chunked", "+2\r\n{}\r\n0\r\n\r\n"),
            "400",
            "did not arrive whole",
        ),
        ("no host", get("/v1/movies", "X-A: 1"), "400", "no Host"),
        ("two hosts", get("/v1/movies", "Host: a\r\nHost: b"), "400", "more than one Host"),
        (
            "two tokens",
            get("/v1/movies", "Host: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b"),
            "400",
            "more than one",
        ),
        ("NUL in a header", get("/v1/movies", "Host: a\r\nX-A: a\0b"), "400", ""),
        ("no header name", get("/v1/movies", "Host: a\r\n: 1"), "400", ""),
        ("a name with spaces", get("/v1/movies", "Host: a\r\nX A: 1"), "400", ""),
        ("a target with a space", get("/v1/mo vies", "Host: a"), "400", ""),
        ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", ""),
        ("an unknown version", "GET /v1/movies HTTP/3.7\r\nHost: a\r\n\r\n".into(), "400", ""),
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".into(), "400", ""),
        ("CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "not a path"),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "not a path"),
        ("dot segments", get("/v1/cinemas/../../openapi.json", "Host: a"), "400", "dot segments"),
        ("encoded dot segments", get("/v1/cinemas/x/%2e%2E/%2e%2e/x", "Host: a"), "400", "dot segments"),
        ("an encoded slash", get("/v1/cinemas/x%2Fhalls", "Host: a"), "400", "dot segments"),
        ("a head too large", get("/v1/movies", &format!("Host: a\r\nX-A: {long}")), "431", ""),
        ("a target too long", get(&format!("/v1/movies?q={}", "x".repeat(70_000)), "Host: a"), "4", ""),
        ("too many headers", get("/v1/movies", &format!("{many}Host: a")), "431", ""),
        (
            "an absurd length",
            post("Host: a\r\nExpect: 100-continue\r\nContent-Length: 9999999999", ""),
            "413",
            "larger",
        ),
        ("another host as target", get("http://evil.example/v1/nothing", "Host: a"), "404", "no such path"),
    ];
    for (what, bytes, status, word) in table {
        // A request that could be hidden is followed by one that must not be taken for an answer's.
        let closing = bytes.replacen("Host: a\r\n", "Host: a\r\nConnection: close\r\n", 1);
        let said = tell(&gateway, &closing).await;
        let first = statuses(&said).first().copied().unwrap_or("none").to_owned();
        assert!(first.starts_with(status), "{what}: {said:?}");
        assert_eq!(statuses(&said).len(), 1, "{what}: {said:?}");
        assert!(said.contains(word), "{what}: {said:?}");
        if !word.is_empty() {
            let head = said.to_ascii_lowercase();
            assert!(
                head.contains("application/problem+json") && head.contains("x-request-id: "),
                "{what}: {said:?}"
            );
        }
    }
    assert_eq!(eu.got().iter().filter(|got| got.uri.query() == Some("hidden")).count(), 0);
    assert!(eu.got().iter().all(|got| got.method != "POST"), "{:?}", eu.got());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_chunks_reach_the_service_whole() {
    let eu = Fake::start(|got, _| answer(200, got.body.clone())).await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let chunked = "POST /v1/cinemas HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
        3;ext=1\r\none\r\n3\r\ntwo\r\n0\r\nX-T: trailing\r\nX-Region: nowhere\r\n\r\n";
    let last = "POST /v1/halls HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nthree";
    let said = tell(&gateway, &format!("{chunked}{HIDDEN}{last}")).await;
    assert_eq!(statuses(&said), ["200"; 3], "{said}");
    let got = eu.got();
    assert_eq!((got[0].body.as_ref(), got[2].body.as_ref()), (&b"onetwo"[..], &b"three"[..]));
    // Trailers end here: they cannot become headers behind.
    assert_eq!((got[0].header("x-t"), got[0].header("content-length")), ("", "6"));
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let eu = Fake::ok("eu").await;
    let mut config = config(&[("eu", eu.url())]).await;
    config.server.header_timeout_ms = 300;
    config.server.body_idle_timeout_ms = 300;
    config.global_url = eu.url();
    let gateway = Running::start(config).await;
    let long = Duration::from_secs(8);
    // Says nothing; says half a head; says a byte of it now and then.
    for first in ["", "P", "GET /v1/movies HTTP/1.1\r\nHost: a\r\n"] {
        let started = Instant::now();
        let said = tell_for(&gateway, first.as_bytes(), long).await;
        assert!(started.elapsed() < Duration::from_secs(4), "{first:?}: {:?}", started.elapsed());
        assert!(statuses(&said).iter().all(|s| *s == "408"), "{first:?}: {said}");
    }
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET /v1/movies HTTP/1.1\r\n").await.unwrap();
    let started = Instant::now();
    while stream.write_all(b"a: b\r\n").await.is_ok() {
        assert!(started.elapsed() < long, "a head of one line after the other is not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A body that does not come: told, whether it is held or streamed.
    for path in ["/v1/cinemas", "/v1/movies/import"] {
        let said = tell_for(
            &gateway,
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").as_bytes(),
            long,
        )
        .await;
        assert_eq!(statuses(&said), ["408"], "{path}: {said}");
    }
    assert!(eu.got().is_empty());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let released = CancellationToken::new();
    let seen = released.clone();
    let eu = Fake::start(move |_, _| {
        let guard = seen.clone().drop_guard();
        let endless = futures::stream::repeat_with(move || {
            let _held = &guard;
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 64 * 1024]))
        });
        answer(200, Body::from_stream(endless))
    })
    .await;
    let gateway = gateway_of(&eu, |config| config.server.write_stall_ms = 300).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET /v1/movies HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_secs(10), released.cancelled()).await;
    given_up.expect("the service behind is told");
}

#[tokio::test]
async fn a_client_that_leaves_is_not_worked_for() {
    let left = CancellationToken::new();
    let seen = left.clone();
    let eu = Fake::start(move |_, _| Reply::HangHolding(seen.clone().drop_guard())).await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let path = format!("/v1/shows/{}/seats", ShowId::new(&region("eu")));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the service was asked", || async { !eu.got().is_empty() }).await;
    assert!(!left.is_cancelled());
    drop(stream);
    let passed_on = tokio::time::timeout(Duration::from_secs(5), left.cancelled()).await;
    passed_on.expect("the abort is passed on");
}

#[tokio::test]
async fn expectations_are_met_only_when_the_body_is_wanted() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let head = "POST /v1/cinemas HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(statuses(&said), ["200"]);
    assert_eq!(eu.got()[0].header("expect"), "");
    let refused = tell(&gateway, &head.replace("Length: 2", "Length: 2000000")).await;
    assert_eq!(statuses(&refused), ["413"], "{refused}");
}

#[tokio::test]
async fn there_are_only_so_many_connections() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |config| config.server.max_connections = 2).await;
    let refused = gateway.metrics.connections_refused.get();
    let one = TcpStream::connect(gateway.addr).await.unwrap();
    let _two = TcpStream::connect(gateway.addr).await.unwrap();
    eventually("a third is closed", || async {
        let mut third = TcpStream::connect(gateway.addr).await.unwrap();
        let mut end = [0; 1];
        let read = tokio::time::timeout(Duration::from_millis(200), third.read(&mut end)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    })
    .await;
    assert!(gateway.metrics.connections_refused.get() > refused);
    drop(one);
    eventually("there is room again", || async {
        let sent = gateway.get("/v1/movies").header("connection", "close").send().await;
        sent.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

type H2 = hyper::client::conn::http2::SendRequest<Body>;

async fn h2(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> H2 {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn http2_carries_many_requests_on_one_connection_and_aborts_one_alone() {
    let left = CancellationToken::new();
    let seen = left.clone();
    let eu = Fake::start(move |got, _| match got.uri.query() {
        Some("hang") => Reply::HangHolding(seen.clone().drop_guard()),
        _ => answer(200, got.body.clone()),
    })
    .await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let mut sender = h2(TcpStream::connect(gateway.addr).await.unwrap()).await;
    let request = |path: &str, body: &'static str| {
        let uri = format!("http://marquee.example{path}");
        Request::post(uri).header("te", "trailers").body(Body::from(body)).unwrap()
    };
    let hanging = tokio::spawn(sender.send_request(request("/v1/cinemas?hang", "")));
    eventually("the service was asked", || async { !eu.got().is_empty() }).await;
    let many = (0..50).map(|_| sender.send_request(request("/v1/cinemas", "{\"a\":1}")));
    for answered in futures::future::join_all(many).await {
        let answered = answered.unwrap();
        assert_eq!(answered.status(), 200);
        assert!(!answered.headers().contains_key("connection"));
        assert_eq!(answered.into_body().collect().await.unwrap().to_bytes(), "{\"a\":1}");
    }
    hanging.abort();
    let passed_on = tokio::time::timeout(Duration::from_secs(5), left.cancelled()).await;
    passed_on.expect("a reset stream is passed on");
    let odd = sender.send_request(request("/v1/../openapi.json", "")).await.unwrap();
    assert_eq!(odd.status(), 400);
    // A head beyond the limit costs its stream, not the connection.
    let huge =
        Request::get("http://a/v1/movies").header("x-a", "x".repeat(60_000)).body(Body::empty()).unwrap();
    assert!(sender.send_request(huge).await.is_ok_and(|answer| answer.status() == 431));
    assert_eq!(sender.send_request(request("/v1/cinemas", "")).await.unwrap().status(), 200);
}

fn certificate(folder: &std::path::Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// A TLS connection that takes no other certificate than this.
async fn tls(
    gateway: &Running,
    trusted: &rustls::pki_types::CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(gateway.addr).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await
}

#[tokio::test]
async fn tls_is_served_and_the_certificate_replaced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |config| {
        config.tls.cert_file = folder.path().join("cert.pem").to_str().unwrap().to_owned();
        config.tls.key_file = folder.path().join("key.pem").to_str().unwrap().to_owned();
        config.server.header_timeout_ms = 500;
    })
    .await;
    let mut stream = tls(&gateway, &first, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /v1/movies HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said).await;
    assert_eq!(statuses(&said), ["200"], "{said}");
    assert!(said.to_lowercase().contains("strict-transport-security: max-age="), "{said}");
    let mut sender = h2(tls(&gateway, &first, b"h2").await.unwrap()).await;
    let get = Request::get("https://localhost/v1/movies").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(get).await.unwrap().status(), 200);
    // One who does not speak TLS at all is not waited for.
    let started = Instant::now();
    assert_eq!(statuses(&tell(&gateway, "").await), Vec::<&str>::new());
    assert!(started.elapsed() < Duration::from_secs(5));

    std::fs::write(folder.path().join("cert.pem"), "not a certificate").unwrap();
    tokio::time::timeout(Duration::from_secs(1), tls(&gateway, &first, b"h2")).await.unwrap().unwrap();
    let second = certificate(folder.path());
    eventually("the new certificate is served", || async { tls(&gateway, &second, b"h2").await.is_ok() })
        .await;
    assert!(tls(&gateway, &first, b"h2").await.is_err());

    // Replaced without a trace that a look at the files would find: SIGHUP reads them all the same.
    let file = |name: &str| folder.path().join(name);
    let times =
        ["cert.pem", "key.pem"].map(|name| std::fs::metadata(file(name)).unwrap().modified().unwrap());
    let third = certificate(folder.path());
    for (name, time) in ["cert.pem", "key.pem"].into_iter().zip(times) {
        std::fs::File::options().write(true).open(file(name)).unwrap().set_modified(time).unwrap();
    }
    hang_up();
    eventually("the third certificate is served", || async { tls(&gateway, &third, b"h2").await.is_ok() })
        .await;
}

/// To this very process, as an operator would to a gateway's.
fn hang_up() {
    let told = std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status();
    assert!(told.unwrap().success());
}

#[tokio::test]
async fn a_gateway_without_a_certificate_outlives_sighup() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |_| {}).await;
    assert_eq!(gateway.get("/v1/movies").send().await.unwrap().status(), 200);
    hang_up();
    assert_eq!(gateway.get("/v1/movies").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn browsers_are_told_who_may_call_and_what_pages_may_do() {
    let eu = Fake::ok("eu").await;
    let closed = gateway_of(&eu, |_| {}).await;
    let plain = closed.get("/v1/movies").header("origin", "https://shop.example").send().await.unwrap();
    assert!(!plain.headers().contains_key("access-control-allow-origin"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        assert_eq!(plain.headers()[name], value, "{name}");
        let missing = closed.get("/v1/nothing").send().await.unwrap();
        assert_eq!(missing.headers()[name], value, "{name} of an error");
    }
    let page = closed.get("/docs/").send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));

    let open = gateway_of(&eu, |config| {
        config.cors.allowed_origins = vec!["https://shop.example".to_owned()];
    })
    .await;
    let before = eu.got().len();
    let preflight = |origin: &'static str| {
        let asked = open.http.request(http::Method::OPTIONS, format!("{}/v1/cinemas", open.url));
        asked
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, idempotency-key")
            .send()
    };
    let allowed = preflight("https://shop.example").await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://shop.example");
    assert!(allowed.headers()["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
    let stranger = preflight("https://evil.example").await.unwrap();
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));
    assert_eq!(eu.got().len(), before, "preflights are answered here");
    let called = open.get("/v1/movies").header("origin", "https://shop.example").send().await.unwrap();
    assert_eq!(called.headers()["access-control-allow-origin"], "https://shop.example");
    let exposed = called.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    assert!(
        exposed.contains("x-request-id")
            && !called.headers().contains_key("access-control-allow-credentials")
    );
}
