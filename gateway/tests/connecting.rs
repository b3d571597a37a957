//! A connection whose first packet is lost. Alone in its process, whose metrics it reads.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::Duration;

use support::{Fake, Running, answer, config};
use tokio::net::{TcpSocket, TcpStream};

/// A full queue of a listener drops what opens a connection, as a network that has too much to carry does. The kernel
/// sends it again after a second, which is later than a connection may take here.
#[tokio::test]
async fn a_lost_packet_does_not_make_a_service_unreachable() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut config = config(&[("eu", format!("http://{addr}"))]).await;
    config.upstream.connect_timeout_ms = 900;
    let mut waiting = Vec::new();
    let connect = async || tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(addr)).await;
    while let Ok(connection) = connect().await {
        waiting.push(connection.unwrap());
        assert!(waiting.len() < 100, "the queue has an end");
    }
    let gateway = Running::start(config).await;
    let asked = tokio::spawn(gateway.get("/v1/movies").send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    let _eu = Fake::serving(listener, |_, _| answer(200, "eu"));
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    assert_eq!(gateway.metrics.retries.get(), 0, "the first attempt got through");
}
