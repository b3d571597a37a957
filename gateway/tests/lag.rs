//! A gateway that has more to do than it can: readers are refused, and those who buy are not.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway::config::Rate;
use support::{Fake, Running, config, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const READERS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_behind_refuses_reading_and_goes_on_selling() {
    let eu = Fake::ok("eu").await;
    let mut config = config(&[("eu", eu.url())]).await;
    // The flood is of those who are told that they ask too much: what is passed on costs this test more than it
    // costs the gateway, and it is the gateway that has to be late.
    config.limits.read_per_address = Rate { per_sec: 1, burst: 1 };
    config.server.workers = 1;
    // Less than two hundred at once take; and nothing of selling is refused before four seconds of that.
    config.server.max_lag_ms = 3;
    let gateway = Running::start(config).await;
    let (refused, over) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (addr, refused, over) = (gateway.addr, refused.clone(), over.clone());
            // As cheap as can be, for the same reason.
            tokio::spawn(async move {
                let mut connection = TcpStream::connect(addr).await.unwrap();
                let mut answer = [0; 4096];
                while !over.is_cancelled() {
                    connection.write_all(b"GET /v1/movies HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                    let length = connection.read(&mut answer).await.unwrap();
                    let answer = String::from_utf8_lossy(&answer[..length]);
                    match answer.get(..12) {
                        Some("HTTP/1.1 503") => {
                            assert!(answer.contains("retry-after: ") && answer.contains("\"overloaded\""));
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Some("HTTP/1.1 200") => assert!(answer.ends_with("eu"), "{answer}"),
                        _ => assert!(answer.starts_with("HTTP/1.1 429"), "{answer}"),
                    }
                }
            })
        })
        .collect();
    eventually("readers are refused", || async { refused.load(Ordering::Relaxed) > 0 }).await;
    for _ in 0..10 {
        let sold = gateway.post("/v1/reservations/rsv_1/cancel").send().await.unwrap();
        assert_eq!(sold.status(), 200);
    }
    let counted = |lane: &str| gateway.metrics.shed_by_lag.with_label_values(&[lane]).get();
    assert!(counted("reading") > 0 && counted("selling") == 0);
    over.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
    eventually("all is served again", || async { gateway.metrics.lanes_refused.get() == 0.0 }).await;
    eventually("a reader is served", || async {
        gateway.get("/v1/movies").send().await.unwrap().status() == 200
    })
    .await;
}
