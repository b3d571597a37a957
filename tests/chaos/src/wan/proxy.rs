//! The network where there are no namespaces: parts listen on loopback, each place has an address of its own
//! (`127.77.0.1`, …), and here connections to it are taken and passed on. Each direction of a connection has its
//! place's delay. A piece that is lost comes again after a while, as TCP would have it, with all behind it; now and
//! then a connection ends of it. What meets a cut waits until the cut is over.
//!
//! Invariant: pieces of one direction keep their order; the end of a connection is told as late as anything else.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use marquee::launcher::{Sites, forwarded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::Wan;
use super::caller::Callers;
use crate::rooms::{CUSTOMERS, place_named};

const PIECE: usize = 16 * 1024;
/// Pieces on their way in one direction of a connection.
const UNDER_WAY: usize = 256;
/// What was lost, or met a cut, is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Of so many lost pieces one ends its connection.
const ENDS: u32 = 20;
/// Longer than any fault.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Forwards to every port of the platform in `data` that other places use, as soon as it is chosen.
pub fn start(wan: &Wan, sites: &Sites, data: PathBuf) {
    let (wan, sites) = (wan.clone(), sites.clone());
    tokio::spawn(async move {
        // The launcher writes its ports down before it starts anything.
        let ports: BTreeMap<String, u16> = loop {
            let text = tokio::fs::read(data.join("ports.json")).await.unwrap_or_default();
            match serde_json::from_slice(&text) {
                Ok(ports) => break ports,
                Err(_) => sleep(POLL).await,
            }
        };
        let callers = Arc::new(Callers::new(data));
        for (name, port) in ports {
            let Some((place, host)) = forwarded(&sites, &name) else { continue };
            let Some(to) = place_named(&place) else { continue };
            match TcpListener::bind((host, port)).await {
                Ok(listener) => drop(tokio::spawn(take(wan.clone(), callers.clone(), listener, to, port))),
                Err(error) => crate::say(&format!("{name} cannot be forwarded to at {host}:{port}: {error}")),
            }
        }
    });
}

async fn take(wan: Wan, callers: Arc<Callers>, listener: TcpListener, to: usize, port: u16) {
    loop {
        let Ok((stream, SocketAddr::V4(peer))) = listener.accept().await else {
            sleep(POLL).await;
            continue;
        };
        let (wan, callers) = (wan.clone(), callers.clone());
        tokio::spawn(async move {
            let Ok(SocketAddr::V4(here)) = stream.local_addr() else { return };
            let from = who(callers, peer, here).await;
            // However it ends, both ends learn of it by their sockets.
            let _ = pass_on(&wan, stream, from, to, port).await;
        });
    }
}

/// The place of whoever connected; who is no part of the platform is a customer.
async fn who(callers: Arc<Callers>, peer: SocketAddrV4, here: SocketAddrV4) -> usize {
    let part = tokio::task::spawn_blocking(move || callers.part(peer, here)).await.ok().flatten();
    let place =
        part.and_then(|part| place_named(part.split_once('-').map_or(part.as_str(), |(_, place)| place)));
    place.unwrap_or(CUSTOMERS)
}

/// The connection is over.
struct Over;

async fn pass_on(wan: &Wan, caller: TcpStream, from: usize, to: usize, port: u16) -> Result<(), Over> {
    let (there, back) = (Lane { wan, from, to }, Lane { wan, from: to, to: from });
    sleep_until(there.due().await?).await;
    let Ok(called) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        sleep_until(back.due().await?).await;
        return Err(Over);
    };
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    let ((caller_says, caller_hears), (called_says, called_hears)) =
        (caller.into_split(), called.into_split());
    tokio::try_join!(there.carry(caller_says, called_hears), back.carry(called_says, caller_hears)).map(drop)
}

/// One direction of one connection.
struct Lane<'a> {
    wan: &'a Wan,
    from: usize,
    to: usize,
}

impl Lane<'_> {
    /// When what is sent now arrives.
    async fn due(&self) -> Result<Instant, Over> {
        let began = Instant::now();
        loop {
            let link = self.wan.link(self.from, self.to).ok_or(Over)?;
            let on_its_way = link.takes(rand::random_range(0..1000));
            self.wan.count(on_its_way);
            if on_its_way {
                return Ok(Instant::now() + link.delay);
            }
            let ends = !link.cut && rand::random_range(0..ENDS) == 0;
            if ends || began.elapsed() > GIVEN_UP_AFTER {
                return Err(Over);
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn carry(&self, mut read: OwnedReadHalf, mut write: OwnedWriteHalf) -> Result<(), Over> {
        let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
        let take_in = async move {
            loop {
                let mut piece = vec![0; PIECE];
                // A connection that broke has ended too.
                let length = read.read(&mut piece).await.unwrap_or(0);
                piece.truncate(length);
                let due = self.due().await?;
                pieces.send((due, piece)).await.map_err(|_| Over)?;
                if length == 0 {
                    return Ok(());
                }
            }
        };
        let give_out = async move {
            while let Some((due, piece)) = arriving.recv().await {
                sleep_until(due).await;
                let given =
                    if piece.is_empty() { write.shutdown().await } else { write.write_all(&piece).await };
                given.map_err(|_| Over)?;
            }
            Ok(())
        };
        tokio::try_join!(take_in, give_out).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::Links;

    const TRIP: Duration = Duration::from_millis(60);

    /// All who call are customers.
    fn nobody() -> Arc<Callers> {
        Arc::new(Callers::new("/nowhere".into()))
    }

    /// What stands behind the proxy answers everything with itself.
    async fn echo() -> (Wan, SocketAddr) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let mut links = Links::new(CUSTOMERS + 1);
        links.round_trip(CUSTOMERS, 0, TRIP);
        let (wan, listener) = (Wan::new(links), TcpListener::bind("127.77.0.9:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(take(wan.clone(), nobody(), listener, 0, port));
        (wan, address)
    }

    async fn said(stream: &mut TcpStream, text: &[u8]) -> Duration {
        let began = Instant::now();
        stream.write_all(text).await.unwrap();
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, text);
        began.elapsed()
    }

    #[tokio::test]
    async fn connections_take_the_links_delay_and_wait_while_one_way_is_cut() {
        let (wan, address) = echo().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        said(&mut stream, b"first").await;
        let took = said(&mut stream, &[7; 3 * PIECE]).await;
        assert!(took >= TRIP, "{took:?}");
        wan.change(|links| links.change(0, CUSTOMERS, |link| link.cut = true));
        let heal = async {
            sleep(Duration::from_millis(500)).await;
            wan.change(Links::heal);
        };
        let (took, ()) = tokio::join!(said(&mut stream, b"through the cut"), heal);
        assert!(took >= Duration::from_millis(500), "{took:?}");
        // The end of one side reaches the other.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        let (passed, dropped) = wan.counts();
        assert!(passed > 8 && dropped > 0, "{passed} {dropped}");
    }

    #[tokio::test]
    async fn where_nobody_listens_the_connection_ends_after_a_round_trip() {
        let (links, unused) = (Links::new(CUSTOMERS + 1), common::loopback::unused_address().unwrap());
        let (wan, listener) = (Wan::new(links), TcpListener::bind("127.77.0.9:0").await.unwrap());
        wan.change(|links| links.round_trip(CUSTOMERS, 0, TRIP));
        let address = listener.local_addr().unwrap();
        tokio::spawn(take(wan, nobody(), listener, 0, unused.port()));
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(began.elapsed() >= TRIP);
    }
}
