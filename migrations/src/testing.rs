//! A private Postgres server for tests: real, on a free loopback port, in a folder of its own, gone with
//! the value. Failures panic, as befits a test's set-up.
//!
//! As root the server runs as `postgres` (or `nobody`), since Postgres refuses to run as root.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Schema;

const USER: &str = "marquee";

/// How the server is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether commits reach the disk. Unit tests that crash nothing may do without.
    pub fsync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: true }
    }
}

/// A running server; dropping it stops the server and removes its folder.
pub struct TestPostgres {
    server: Child,
    port: u16,
    options: Options,
    user: Option<(u32, u32)>,
    folder: tempfile::TempDir,
}

impl TestPostgres {
    /// Starts a server with durable commits.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a server. Blocks the thread for about a second.
    pub fn start_with(options: Options) -> Self {
        let bin = find_binaries();
        let folder = tempfile::Builder::new().prefix("marquee-pg-").tempdir().expect("a temporary folder");
        let user = unprivileged(folder.path());
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let data = folder.path().join("data");
        let mut init = command(&bin.join("initdb"), user, folder.path());
        init.args(["-U", USER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&data);
        let made = init.output().expect("initdb can be run");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

        // Between choosing a free port and binding it another process may take it; then the next is tried.
        for _ in 0..5 {
            let port = common::loopback::unused_address().expect("a free port").port();
            let mut server = launch(&bin, &data, user, folder.path(), port, options);
            if ready(&bin, port, &mut server) {
                return Self { server, port, options, user, folder };
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        panic!("Postgres did not start; its log is {}", read_log(folder.path()));
    }

    /// The URL of a database of this server. `postgres` is always there; others: [`Self::database`].
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database and gives its URL.
    pub async fn database(&self, name: &str) -> String {
        let pool = crate::pool(&self.url("postgres"), 1).expect("the URL is well formed");
        let client = pool.get().await.expect("the server runs");
        client.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await.expect("the name is free");
        self.url(name)
    }

    /// Creates a database with `schema` and gives its URL.
    pub async fn migrated(&self, name: &str, schema: Schema) -> String {
        let url = self.database(name).await;
        schema.migrate(&url).await.expect("the migrations apply");
        url
    }

    /// Kills the server without warning and starts it again on the same port and data. Blocks the thread.
    pub fn crash_and_restart(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("a child can be waited for");
        let (bin, user) = (find_binaries(), self.user);
        let data = self.folder.path().join("data");
        // Its orphaned backends end by themselves; until then the new server refuses to start.
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            self.server = launch(&bin, &data, user, self.folder.path(), self.port, self.options);
            if ready(&bin, self.port, &mut self.server) {
                return;
            }
            let _ = self.server.wait();
        }
        panic!("Postgres did not start again; its log is {}", read_log(self.folder.path()));
    }

    /// Stops the server, keeps a copy of its data as it is now, and starts it again. Blocks the thread.
    pub fn snapshot(&mut self) -> Snapshot {
        self.stop();
        let kept = tempfile::Builder::new().prefix("marquee-pg-kept-").tempdir().expect("a temporary folder");
        copy_folder(&self.folder.path().join("data"), &kept.path().join("data"), self.user);
        self.start_again();
        Snapshot(kept)
    }

    /// Stops the server and starts it on the data of `snapshot`, as who restores a disk does. Blocks the thread.
    pub fn go_back_to(&mut self, snapshot: &Snapshot) {
        self.stop();
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&data).expect("the test's own folder");
        copy_folder(&snapshot.0.path().join("data"), &data, self.user);
        self.start_again();
    }

    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // Fast shutdown: sessions are ended, all is written.
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        }
        self.server.wait().expect("a child can be waited for");
    }

    fn start_again(&mut self) {
        let data = self.folder.path().join("data");
        let bin = find_binaries();
        self.server = launch(&bin, &data, self.user, self.folder.path(), self.port, self.options);
        assert!(ready(&bin, self.port, &mut self.server), "its log is {}", read_log(self.folder.path()));
    }

    /// The server's process, for tests that stop it on purpose.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

/// A server's data at one moment.
pub struct Snapshot(tempfile::TempDir);

fn copy_folder(from: &Path, to: &Path, user: Option<(u32, u32)>) {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(to).expect("a new folder");
    if let Some((uid, gid)) = user {
        chown(to, Some(uid), Some(gid)).expect("root may give a folder away");
    }
    for entry in std::fs::read_dir(from).expect("a server's folder") {
        let entry = entry.expect("a server that is stopped changes nothing");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy_folder(&entry.path(), &target, user);
        } else {
            std::fs::copy(entry.path(), &target).expect("room for a small database");
            if let Some((uid, gid)) = user {
                chown(&target, Some(uid), Some(gid)).expect("root may give a file away");
            }
        }
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        // Immediate shutdown: the postmaster ends its children; nothing of the data is wanted any more.
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn launch(
    bin: &Path,
    data: &Path,
    user: Option<(u32, u32)>,
    folder: &Path,
    port: u16,
    options: Options,
) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("the folder is writable");
    let fsync = format!("fsync={}", if options.fsync { "on" } else { "off" });
    let mut server = command(&bin.join("postgres"), user, folder);
    server
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .args(["-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", &fsync])
        .stdout(Stdio::null())
        .stderr(log);
    server.spawn().expect("postgres can be run")
}

fn command(program: &Path, user: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    // The caller's folder may be closed to the unprivileged user.
    command.current_dir(folder).env("LC_ALL", "C").stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn ready(bin: &Path, port: u16, server: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if !matches!(server.try_wait(), Ok(None)) {
            return false;
        }
        let answer = Command::new(bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, "-d", "postgres"])
            .status();
        if answer.is_ok_and(|s| s.success()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn read_log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_else(|_| "empty".into())
}

/// Whom to run as when this process is root (what it creates is then owned by user 0).
fn unprivileged(own: &Path) -> Option<(u32, u32)> {
    if std::fs::metadata(own).expect("it was just made").uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a user table");
    let found = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(found.expect("a user `postgres` or `nobody`"))
}

/// Where the server's programs are: Debian's and Homebrew's folders, newest first, then `PATH`.
fn find_binaries() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (root, name_starts) in
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix(name_starts).and_then(|v| v.parse().ok());
            if let Some(version) = version {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    found.sort();
    let mut folders: Vec<PathBuf> = found.into_iter().rev().map(|(_, path)| path).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders
        .into_iter()
        .find(|bin| ["initdb", "postgres", "pg_isready"].iter().all(|p| bin.join(p).is_file()))
        .expect("a Postgres server is installed (package `postgresql`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_private_server_serves_and_is_gone_with_its_value() {
        let postgres = TestPostgres::start();
        for (name, schema) in [("g", Schema::Global), ("r", Schema::Regional)] {
            let url = postgres.migrated(name, schema).await;
            let pool = crate::pool(&url, 2).unwrap();
            schema.check(&pool).await.unwrap();
            assert_eq!(schema.migrate(&url).await.unwrap(), 0, "a repeat finds nothing to do");
            let fsync: String = pool.get().await.unwrap().query_one("SHOW fsync", &[]).await.unwrap().get(0);
            assert_eq!(fsync, "on");
        }
        let (pid, port) = (postgres.pid(), postgres.port);
        drop(postgres);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
