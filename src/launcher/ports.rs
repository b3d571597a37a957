//! Ports that a platform keeps: found free once, remembered in its folder, taken again when still free.
//!
//! A found port is held by a listener until its process starts, so that two platforms starting together
//! never agree on one. None is from the range of outgoing connections ([`common::loopback`]): a
//! busy client could otherwise sit on the port of a process that is being restarted.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use common::loopback::{hold, hold_unused};

use super::files;
use super::site::{Sites, forwarded, host};

const FILE: &str = "ports.json";

pub struct Ports {
    file: PathBuf,
    chosen: BTreeMap<String, u16>,
    held: BTreeMap<String, TcpListener>,
    sites: Sites,
}

impl Ports {
    /// Chooses a port for every name: with a base, consecutive ones from there, all of which must be free.
    pub fn choose(data: &Path, names: &[String], base: Option<u16>) -> anyhow::Result<Self> {
        let file = data.join(FILE);
        let remembered: BTreeMap<String, u16> =
            std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let mut ports = Self { file, chosen: BTreeMap::new(), held: BTreeMap::new(), sites: Sites::new() };
        match base {
            Some(base) => ports.take_from(base, names)?,
            None => ports.take_free(names, &remembered)?,
        }
        ports.file_write()?;
        Ok(ports)
    }

    /// The same ports, of places that may stand elsewhere.
    #[must_use]
    pub fn at(self, sites: &Sites) -> Self {
        Self { sites: sites.clone(), ..self }
    }

    fn take_from(&mut self, base: u16, names: &[String]) -> anyhow::Result<()> {
        let mut taken = Vec::new();
        for (offset, name) in names.iter().enumerate() {
            let port =
                u16::try_from(usize::from(base) + offset).ok().filter(|p| *p > 0).with_context(|| {
                    format!("--port-base {base} leaves no room for the {} ports needed", names.len())
                })?;
            match hold(port) {
                Ok(listener) => self.keep(name, port, listener),
                Err(_) => taken.push(port.to_string()),
            }
        }
        anyhow::ensure!(
            taken.is_empty(),
            "--port-base {base} needs the {} ports from {base} on, and these are in use: {}",
            names.len(),
            taken.join(", ")
        );
        Ok(())
    }

    fn take_free(&mut self, names: &[String], remembered: &BTreeMap<String, u16>) -> anyhow::Result<()> {
        // The remembered first, lest a new name draws one of them.
        for name in names {
            if let Some(port) = remembered.get(name)
                && let Ok(listener) = hold(*port)
            {
                self.keep(name, *port, listener);
            }
        }
        for name in names {
            if self.chosen.contains_key(name) {
                continue;
            }
            let listener = hold_unused().context("no free TCP port was found on 127.0.0.1")?;
            self.keep(name, listener.local_addr()?.port(), listener);
        }
        Ok(())
    }

    fn keep(&mut self, name: &str, port: u16, listener: TcpListener) {
        self.chosen.insert(name.to_owned(), port);
        self.held.insert(name.to_owned(), listener);
    }

    fn file_write(&self) -> anyhow::Result<()> {
        files::write_private(&self.file, &serde_json::to_vec_pretty(&self.chosen)?, None)
    }

    pub fn get(&self, name: &str) -> u16 {
        *self.chosen.get(name).expect("every part's ports are among the names chosen for")
    }

    pub fn host(&self, name: &str) -> Ipv4Addr {
        host(&self.sites, name)
    }

    pub fn address(&self, name: &str) -> String {
        format!("{}:{}", self.host(name), self.get(name))
    }

    /// What its process listens on; others reach it at [`Self::address`].
    pub fn listen(&self, name: &str) -> String {
        let behind = forwarded(&self.sites, name).is_some();
        let host = if behind { Ipv4Addr::LOCALHOST } else { self.host(name) };
        format!("{host}:{}", self.get(name))
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}", self.address(name))
    }

    /// Lets go of a part's ports, right before its process binds them.
    pub fn release(&mut self, part: &str) {
        self.held.retain(|name, _| name != part && !name.starts_with(&format!("{part}.")));
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    fn names() -> Vec<String> {
        ["gateway-eu", "gateway-eu.ops", "gateway-eu2"].map(str::to_owned).to_vec()
    }

    #[test]
    fn ports_are_distinct_held_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Ports::choose(folder.path(), &names(), None).unwrap();
        let chosen = first.chosen.clone();
        assert_eq!(chosen.values().collect::<std::collections::BTreeSet<_>>().len(), 3);
        for port in chosen.values() {
            assert!(TcpListener::bind(("127.0.0.1", *port)).is_err(), "{port} is not held");
            assert!(hold(*port).is_err(), "{port} could be held twice");
        }
        first.release("gateway-eu");
        assert!(TcpListener::bind(first.address("gateway-eu")).is_ok());
        assert!(TcpListener::bind(first.address("gateway-eu.ops")).is_ok());
        assert!(TcpListener::bind(first.address("gateway-eu2")).is_err());
        drop(first);
        let blocker = TcpListener::bind(("127.0.0.1", chosen["gateway-eu"])).unwrap();
        let second = Ports::choose(folder.path(), &names(), None).unwrap();
        assert_eq!(second.get("gateway-eu2"), chosen["gateway-eu2"]);
        assert_ne!(second.get("gateway-eu"), blocker.local_addr().unwrap().port());
    }

    #[test]
    fn a_base_gives_consecutive_ports_or_says_which_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let base = 9_000 + rand::rng().random_range(0..900);
        let blocker = TcpListener::bind(("127.0.0.1", base + 1));
        let error = Ports::choose(folder.path(), &names(), Some(base)).err().unwrap().to_string();
        assert!(error.contains(&(base + 1).to_string()), "{error}");
        drop(blocker);
        let ports = Ports::choose(folder.path(), &names(), Some(base)).unwrap();
        assert_eq!(ports.get("gateway-eu2"), base + 2);
        assert!(Ports::choose(folder.path(), &names(), Some(65_534)).is_err());
    }
}
