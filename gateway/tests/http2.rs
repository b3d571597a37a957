//! HTTP/2 by its frames (RFC 9113): what breaks the protocol ends its stream or its connection with the code
//! that the RFC names, and what only costs us ends too. hyper does the work; this says that ours is set up so.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::Duration;

use support::{Fake, Running, config, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(10);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text.as_bytes());
    bytes
}

/// A literal header field, by its own name (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// `:method GET`, `:scheme http`, `:path /v1/movies`, `:authority a`.
fn get() -> Vec<u8> {
    [vec![0x82, 0x86, 0x04], text("/v1/movies"), vec![0x01], text("a")].concat()
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get())
}

/// A request with fields of its own after the usual ones.
fn with(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let more = fields.iter().flat_map(|(name, value)| field(name, value));
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get().into_iter().chain(more).collect::<Vec<_>>())
}

/// A POST whose body is still to come.
fn post(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let head = [vec![0x83, 0x86, 0x04], text("/v1/cinemas"), vec![0x01], text("a")].concat();
    let more = fields.iter().flat_map(|(name, value)| field(name, value));
    frame(HEADERS, END_HEADERS, stream, &head.into_iter().chain(more).collect::<Vec<_>>())
}

/// What the server said: how its connection ended, which streams it reset, which it answered.
#[derive(Debug, Default)]
struct Said {
    goaway: Option<u32>,
    resets: Vec<(u32, u32)>,
    answered: Vec<u32>,
    pongs: usize,
    closed: bool,
}

impl Said {
    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            GOAWAY => self.goaway = Some(number(4)),
            RST_STREAM => self.resets.push((stream, number(0))),
            HEADERS => self.answered.push(stream),
            PING if flags & ACK != 0 => self.pongs += 1,
            _ => {}
        }
    }
}

async fn open(gateway: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Reads until the connection ends or `enough` holds.
async fn hear(stream: &mut TcpStream, enough: impl Fn(&Said) -> bool) -> Said {
    let mut said = Said::default();
    let reading = async {
        let mut head = [0; 9];
        loop {
            if stream.read_exact(&mut head).await.is_err() {
                said.closed = true;
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                said.closed = true;
                return;
            }
            said.take(head[3], head[4], u32::from_be_bytes(head[5..].try_into().unwrap()), &payload);
            if enough(&said) {
                return;
            }
        }
    };
    let heard = timeout(PATIENCE, reading).await;
    assert!(heard.is_ok(), "nothing more came: {said:?}");
    said
}

async fn gateway_of(eu: &Fake, change: impl FnOnce(&mut gateway::Config)) -> Running {
    let mut config = config(&[("eu", eu.url())]).await;
    change(&mut config);
    Running::start(config).await
}

enum Ends {
    /// The whole connection, with one of these codes.
    Connection(&'static [u32]),
    /// Its stream 1 alone.
    Stream(&'static [u32]),
    /// Nothing; stream 1 is answered.
    Nothing,
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_what_it_should() {
    use Ends::{Connection, Nothing, Stream};
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |_| {}).await;
    let settings = |id: u16, value: u32| [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat();
    let protocol = &[PROTOCOL_ERROR];
    // The library ends the connection as it must, by the general code in places where the RFC has a closer one.
    const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
    const COMPRESSED: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
    let rows: Vec<(&str, Vec<Vec<u8>>, Ends)> = vec![
        ("a request", vec![request(1)], Nothing),
        ("a frame of an unknown type", vec![frame(0x77, 0xff, 0, b"x"), request(1)], Nothing),
        ("an unknown setting", vec![frame(SETTINGS, 0, 0, &settings(0x7777, 1)), request(1)], Nothing),
        ("a priority", vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), request(1)], Nothing),
        ("DATA on stream 0", vec![frame(DATA, 0, 0, b"x")], Connection(protocol)),
        ("DATA on a stream that was never opened", vec![frame(DATA, 0, 1, b"x")], Connection(protocol)),
        ("HEADERS on stream 0", vec![request(0)], Connection(protocol)),
        ("HEADERS on a stream of the server's", vec![request(2)], Connection(protocol)),
        (
            "a stream number that goes back",
            vec![request(5), request(3)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "RST_STREAM of a stream that was never opened",
            vec![frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])],
            Connection(protocol),
        ),
        ("RST_STREAM of a wrong length", vec![request(1), frame(RST_STREAM, 0, 1, &[0])], Connection(SIZE)),
        ("RST_STREAM on stream 0", vec![frame(RST_STREAM, 0, 0, &[0, 0, 0, 8])], Connection(protocol)),
        (
            "PUSH_PROMISE of a client",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            Connection(protocol),
        ),
        ("PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], Connection(protocol)),
        ("PING of a wrong length", vec![frame(PING, 0, 0, &[0; 7])], Connection(SIZE)),
        ("SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[])], Connection(protocol)),
        ("SETTINGS of a wrong length", vec![frame(SETTINGS, 0, 0, &[0; 5])], Connection(SIZE)),
        (
            "an acknowledgement with settings in it",
            vec![frame(SETTINGS, ACK, 0, &settings(1, 1))],
            Connection(SIZE),
        ),
        (
            "a window of 2^31",
            vec![frame(SETTINGS, 0, 0, &settings(4, 1 << 31))],
            Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        ("frames of 2^24", vec![frame(SETTINGS, 0, 0, &settings(5, 1 << 24))], Connection(protocol)),
        ("ENABLE_PUSH of 2", vec![frame(SETTINGS, 0, 0, &settings(2, 2))], Connection(protocol)),
        ("a frame longer than allowed", vec![frame(DATA, 0, 1, &vec![0; 16_385])], Connection(SIZE)),
        ("a window that grows by nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], Connection(protocol)),
        (
            "a window beyond 2^31 - 1",
            vec![frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        ("CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, &get())], Connection(protocol)),
        (
            "something between HEADERS and CONTINUATION",
            vec![frame(HEADERS, END_STREAM, 1, &get()), frame(PING, 0, 0, &[0; 8])],
            Connection(protocol),
        ),
        (
            "another stream's CONTINUATION",
            vec![frame(HEADERS, END_STREAM, 1, &get()), frame(CONTINUATION, END_HEADERS, 3, &get())],
            Connection(protocol),
        ),
        (
            "padding longer than its frame",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[200, 0x82])],
            Connection(protocol),
        ),
        (
            "an index that no table has",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x7f])],
            Connection(COMPRESSED),
        ),
        (
            "a table larger than agreed",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x3f, 0xe1, 0xff, 0x7f])],
            Connection(COMPRESSED),
        ),
        ("a name in capitals", vec![with(1, &[("X-Odd", "1")])], Stream(protocol)),
        ("a header of one connection", vec![with(1, &[("connection", "close")])], Stream(protocol)),
        ("a transfer coding", vec![with(1, &[("transfer-encoding", "chunked")])], Stream(protocol)),
        ("TE of something else", vec![with(1, &[("te", "gzip")])], Stream(protocol)),
        ("an unknown pseudo-header", vec![with(1, &[(":odd", "1")])], Stream(protocol)),
        ("a pseudo-header of answers", vec![with(1, &[(":status", "200")])], Stream(protocol)),
        (
            "a pseudo-header after others",
            vec![with(1, &[("x-a", "1"), (":method", "GET")])],
            Stream(protocol),
        ),
        ("a pseudo-header twice", vec![with(1, &[(":path", "/v1/users")])], Stream(protocol)),
        ("no method", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &get()[1..])], Stream(protocol)),
        (
            "a body shorter than told",
            vec![post(1, &[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"xy")],
            Stream(protocol),
        ),
        (
            "a body longer than told",
            vec![post(1, &[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"xyz")],
            Stream(protocol),
        ),
        (
            "DATA after the end",
            vec![request(1), frame(DATA, END_STREAM, 1, b"x")],
            Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, frames, ends) in rows {
        let mut stream = open(&gateway).await;
        // One who is refused early may not be read to the end.
        let _ = stream.write_all(&frames.concat()).await;
        let said = hear(&mut stream, |said| {
            let about_it = said.answered.contains(&1) || said.resets.iter().any(|(stream, _)| *stream == 1);
            said.goaway.is_some()
                || (about_it && !matches!(ends, Connection(_)) && !what.starts_with("DATA after"))
        })
        .await;
        let reset = said.resets.iter().find(|(stream, _)| *stream == 1).map(|(_, code)| *code);
        let is_right = match ends {
            Nothing => said.answered == [1] && said.goaway.is_none(),
            Connection(codes) => said.goaway.is_some_and(|code| codes.contains(&code)),
            // The RFC lets a server end the connection where a stream would do.
            Stream(codes) => reset.or(said.goaway).is_some_and(|code| codes.contains(&code)),
        };
        if !is_right {
            wrong.push(format!("{what}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(gateway.get("/v1/movies").send().await.unwrap().status(), 200);
}

/// Sends `flood` again and again, and does not read; true when the server has had enough.
async fn ends_under(gateway: &Running, first: &[u8], flood: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut stream = open(gateway).await;
    stream.write_all(first).await.unwrap();
    let flooding = async {
        for n in 0.. {
            if stream.write_all(&flood(n)).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flooding).await.expect("a flood has no end");
    let mut said = Said::default();
    // What it said before it closed, where the closing left it.
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(1), stream.read_to_end(&mut bytes)).await;
    let mut rest = &bytes[..];
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(payload) = rest.get(9..9 + length) else { break };
        said.take(rest[3], rest[4], u32::from_be_bytes(rest[5..9].try_into().unwrap()), payload);
        rest = &rest[9 + length..];
    }
    said.goaway
}

#[tokio::test]
async fn floods_end_and_others_are_served_meanwhile() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |config| config.server.write_stall_ms = 500).await;
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        [request(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    // CVE-2023-44487: streams that are opened and given up at once.
    let told = ends_under(&gateway, &[], reset).await;
    assert!(told.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{told:?}");
    assert!(eu.got().len() < 1_000, "{} reached the service", eu.got().len());

    // CVE-2024-27316 and its kin: a head that never ends.
    let begun = frame(HEADERS, END_STREAM, 1, &get());
    let filler = field("x-filler", &"x".repeat(100)).repeat(100);
    let told = ends_under(&gateway, &begun, |_| frame(CONTINUATION, 0, 1, &filler)).await;
    assert!(
        told.is_none_or(|code| [ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR].contains(&code)),
        "{told:?}"
    );
    ends_under(&gateway, &begun, |_| frame(CONTINUATION, 0, 1, &[])).await;

    // CVE-2019-9512 and 9515: each wants an answer, and nobody reads the answers.
    let many = |kind, payload: &'static [u8]| move |_| frame(kind, 0, 0, payload).repeat(100);
    ends_under(&gateway, &[], many(PING, &[0; 8])).await;
    ends_under(&gateway, &[], many(SETTINGS, &[])).await;

    assert_eq!(gateway.get("/v1/movies").send().await.unwrap().status(), 200);
    eventually("their connections are gone", || async { gateway.metrics.connections.get() <= 2 }).await;
}

/// A window of nothing for every stream.
async fn open_without_window(gateway: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_opens_no_window_for_its_answers_is_let_go() {
    let eu = Fake::ok("eu").await;
    let gateway = gateway_of(&eu, |config| config.server.write_stall_ms = 1_000).await;
    let is_alive = |said: &Said| said.pongs > 0;
    let ping = frame(PING, 0, 0, &[0; 8]);

    let mut patient = open_without_window(&gateway).await;
    patient.write_all(&request(1)).await.unwrap();
    assert_eq!(hear(&mut patient, |said| said.answered == [1]).await.answered, [1]);
    patient.write_all(&frame(WINDOW_UPDATE, 0, 1, &100_u32.to_be_bytes())).await.unwrap();

    let mut stalled = open_without_window(&gateway).await;
    let begun = std::time::Instant::now();
    stalled.write_all(&[request(1), request(3)].concat()).await.unwrap();
    let said = hear(&mut stalled, |_| false).await;
    assert!(said.closed && said.answered.len() == 2, "{said:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "after {:?}", begun.elapsed());

    // Longer than any answer may be left unread; this one's was read.
    patient.write_all(&ping).await.unwrap();
    assert!(!hear(&mut patient, is_alive).await.closed);
}
