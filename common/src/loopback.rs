//! Ports of this machine that nobody uses, for processes that must be told theirs before they start.
//!
//! They come from below the range that the kernel gives to outgoing connections: a port that the kernel hands
//! out (`bind` to 0) may be anybody's outgoing one, or handed out again, before its server binds it. One
//! process is never given the same port twice.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use rand::Rng;

const LOWEST: u16 = 10_000;
/// Tries, before it is taken that the machine has no port left.
const TRIES: usize = 1_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// An unused port, held until the listener is dropped.
///
/// # Errors
/// Where a thousand random ports were all in use.
pub fn hold_unused() -> std::io::Result<TcpListener> {
    let highest = lowest_outgoing_port().max(LOWEST + 4_000);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = None;
    for _ in 0..TRIES {
        let port = rand::rng().random_range(LOWEST..highest);
        if given.contains(&port) {
            continue;
        }
        match hold(port) {
            Ok(listener) => {
                given.insert(port);
                return Ok(listener);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("every port was given out already")))
}

/// An address with an unused port.
///
/// # Errors
/// As [`hold_unused`].
pub fn unused_address() -> std::io::Result<SocketAddr> {
    hold_unused()?.local_addr()
}

/// This port, while nobody uses it.
///
/// # Errors
/// What the kernel says.
pub fn hold(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn lowest_outgoing_port() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_is_one_of_those_for_outgoing_connections() {
        let ports: HashSet<u16> = (0..500).map(|_| unused_address().unwrap().port()).collect();
        assert_eq!(ports.len(), 500);
        assert!(ports.iter().all(|port| (LOWEST..lowest_outgoing_port().max(LOWEST + 4_000)).contains(port)));
    }
}
