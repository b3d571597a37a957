//! Whose connection it is. On loopback all come from one address; the kernel's tables tell the socket at the other
//! end, the process that holds it tells which part of the platform it is, by the configuration it was started with.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A connection by its ends: who connected, and what it connected to.
type Ends = (SocketAddrV4, SocketAddrV4);

/// Looks through all of the platform's processes at once, since connections come in crowds.
pub struct Callers {
    /// Where the platform's data are.
    data: PathBuf,
    /// Connections that were seen and not yet asked for. Each is told once: its addresses come again some day.
    seen: Mutex<HashMap<Ends, String>>,
}

impl Callers {
    pub fn new(data: PathBuf) -> Self {
        Self { data, seen: Mutex::default() }
    }

    /// The part (`regional-eu`, `global`) that is at the calling end, where it is one of the platform's. Reads files,
    /// for some milliseconds.
    pub fn part(&self, caller: SocketAddrV4, here: SocketAddrV4) -> Option<String> {
        // Who waits here finds what the one before has seen.
        let mut seen = self.seen.lock().ok()?;
        if let Some(part) = seen.remove(&(caller, here)) {
            return Some(part);
        }
        *seen = self.look()?;
        seen.remove(&(caller, here))
    }

    fn look(&self) -> Option<HashMap<Ends, String>> {
        let servers = self.data.join("servers").canonicalize().ok()?;
        let connections = connections(&std::fs::read_to_string("/proc/net/tcp").ok()?);
        let mut parts = HashMap::new();
        for process in std::fs::read_dir("/proc").ok()?.flatten() {
            let Some(part) = part_of(&process.path(), &servers) else { continue };
            let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            for target in files.filter_map(|file| std::fs::read_link(file.path()).ok()) {
                if let Some(ends) = socket(&target).and_then(|inode| connections.get(&inode)) {
                    parts.insert(*ends, part.clone());
                }
            }
        }
        Some(parts)
    }
}

/// The part whose process this is.
fn part_of(process: &Path, servers: &Path) -> Option<String> {
    process.file_name()?.to_str()?.parse::<u32>().ok()?;
    let words = std::fs::read(process.join("cmdline")).ok()?;
    let mut words = words.split(|byte| *byte == 0).skip_while(|word| *word != b"--config").skip(1);
    let config = Path::new(std::str::from_utf8(words.next()?).ok()?);
    let folder = config.parent().filter(|folder| folder.parent() == Some(servers))?;
    Some(folder.file_name()?.to_str()?.to_owned())
}

/// The number of the socket that a process' file is.
fn socket(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Every connection of the kernel's table, by its socket.
fn connections(table: &str) -> HashMap<u64, Ends> {
    let connection = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((fields.get(9)?.parse().ok()?, (address(fields.get(1)?)?, address(fields.get(2)?)?)))
    };
    table.lines().skip(1).filter_map(connection).collect()
}

/// As the table writes them: the address' four bytes as one number of this machine, and the port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(Ipv4Addr::from(host), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("{address}"),
        }
    }

    #[test]
    fn a_connection_of_this_process_is_found_in_the_kernels_table() {
        let listener = TcpListener::bind("127.77.0.9:0").unwrap();
        let here = v4(listener.local_addr().unwrap());
        let stream = TcpStream::connect(here).unwrap();
        let (_accepted, caller) = listener.accept().unwrap();
        let table = connections(&std::fs::read_to_string("/proc/net/tcp").unwrap());
        let own = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets: Vec<_> = own.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
        let found = targets.iter().filter_map(|target| table.get(&socket(target)?));
        assert!(found.into_iter().any(|ends| *ends == (v4(caller), here)));
        let callers = Callers::new("/nowhere".into());
        assert_eq!(callers.part(v4(caller), here), None, "this process is no part of a platform");
        drop(stream);
    }

    #[test]
    fn a_part_is_known_by_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("4711");
        std::fs::create_dir(&process).unwrap();
        let of = |words: &str| {
            std::fs::write(process.join("cmdline"), words).unwrap();
            part_of(&process, Path::new("/d/servers"))
        };
        assert_eq!(
            of("/m\0regional\0--config\0/d/servers/regional-eu/config.toml\0"),
            Some("regional-eu".into())
        );
        assert_eq!(of("/m\0regional\0--config\0/else/servers/regional-eu/config.toml\0"), None);
        assert_eq!(of("/m\0up\0"), None);
    }
}
