//! The data folder: one platform at a time, and everything in it.
//!
//! ```text
//! DIR/lock           held while a platform runs; its pid inside
//! DIR/platform.json  which regions it has
//! DIR/ports.json  DIR/secrets.json  DIR/control.json  DIR/run.json
//! DIR/logs/          one log a process
//! DIR/mail  DIR/sms  links to where `global` puts the mails and the text messages that it sends
//! DIR/servers/       each process's own folder; a link to a folder under /var/tmp when the users that
//!                    processes run as cannot walk down to DIR
//! ```
//!
//! Only what is listed here is ever removed, and only folders made here change their mode.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::files::make_folder;
use super::users::{Users, anyone_reaches};

const FILES: [&str; 6] =
    ["platform.json", "ports.json", "secrets.json", "control.json", "run.json", crate::seed::IMPORTED_FILE];
/// Lies in a folder under /var/tmp and names the data folder it belongs to.
const OWNER_FILE: &str = "belongs-to";

/// What `global` sends, by the name of the link to it.
const SENT: [&str; 2] = ["mail", "sms"];

pub struct Folder {
    root: PathBuf,
    servers: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder and takes its lock. `say` gets a line where the data lie elsewhere.
    pub fn open(data: &Path, reset: bool, users: &Users, say: impl Fn(&str)) -> anyhow::Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("{} cannot be made", data.display()))?;
        let root = data.canonicalize().with_context(|| format!("{} cannot be used", data.display()))?;
        let lock = lock(&root)?;
        if reset {
            remove_content(&root)?;
        }
        make_folder(&root.join("logs"), 0o700, None)?;
        let servers = if users.switch() { shared_servers(&root, &say)? } else { own_servers(&root)? };
        let _ = fs::remove_file(root.join("run.json"));
        Ok(Self { root, servers, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn servers(&self) -> &Path {
        &self.servers
    }

    /// Leads `DIR/mail` and `DIR/sms` to where the mails and messages are, under names of their own.
    pub fn link_sent(&self, target: &Path) -> anyhow::Result<()> {
        let name = target.file_name().filter(|name| SENT.iter().any(|sent| name == sent));
        let link = self.root.join(name.context("only what is sent has a link")?);
        if fs::read_link(&link).is_ok_and(|present| present == target) {
            return Ok(());
        }
        remove_link(&link)?;
        std::os::unix::fs::symlink(target, &link)
            .with_context(|| format!("{} cannot be made", link.display()))
    }

    pub fn log(&self, part: &str) -> PathBuf {
        self.root.join("logs").join(format!("{part}.log"))
    }
}

/// Removes a platform's data; refuses while it runs. The folder itself stays if it holds anything else.
pub fn remove(data: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let root = data.canonicalize()?;
    let lock = lock(&root)?;
    remove_content(&root)?;
    let _ = fs::remove_file(root.join("lock"));
    drop(lock);
    let _ = fs::remove_dir(&root);
    Ok(())
}

fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    // The kernel lets go of the lock when its holder dies, so a stale file blocks nobody.
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            anyhow::bail!(
                "{} belongs to a platform that is running (pid {}); stop that one, or choose another --data",
                root.display(),
                holder.trim()
            );
        }
        Err(fs::TryLockError::Error(e)) => return Err(e).context("the data folder cannot be locked"),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn remove_link(link: &Path) -> std::io::Result<()> {
    if fs::read_link(link).is_ok() { fs::remove_file(link) } else { Ok(()) }
}

fn remove_content(root: &Path) -> anyhow::Result<()> {
    let servers = root.join("servers");
    if let Ok(target) = fs::read_link(&servers) {
        // Only a folder that says it is ours.
        if belongs_to(&target, root) {
            fs::remove_dir_all(&target)?;
        }
        fs::remove_file(&servers)?;
    } else if servers.is_dir() {
        fs::remove_dir_all(&servers)?;
    }
    for name in SENT {
        remove_link(&root.join(name))?;
    }
    let logs = root.join("logs");
    if logs.is_dir() {
        fs::remove_dir_all(&logs)?;
    }
    for name in FILES {
        let _ = fs::remove_file(root.join(name));
    }
    Ok(())
}

fn own_servers(root: &Path) -> anyhow::Result<PathBuf> {
    let servers = root.join("servers");
    make_folder(&servers, 0o700, None)?;
    Ok(servers.canonicalize()?)
}

/// A place for the processes' folders that every user can walk down to.
fn shared_servers(root: &Path, say: &impl Fn(&str)) -> anyhow::Result<PathBuf> {
    let servers = root.join("servers");
    if let Ok(target) = fs::read_link(&servers) {
        if belongs_to(&target, root) {
            return Ok(target);
        }
        say(&format!("{} is gone; the servers start with new data", target.display()));
        fs::remove_file(&servers)?;
    }
    let metadata = fs::metadata(root)?;
    if anyone_reaches(root) && !servers.exists() && metadata.mode() & 0o001 == 0 {
        // Ours to open for passing through: what lies in it stays private.
        if metadata.uid() == rustix::process::geteuid().as_raw() {
            fs::set_permissions(root, fs::Permissions::from_mode(metadata.mode() | 0o001))?;
        }
    }
    if anyone_reaches(&servers) {
        make_folder(&servers, 0o711, None)?;
        return Ok(servers);
    }
    anyhow::ensure!(
        !servers.exists(),
        "{} holds data, but the users that servers run as can no longer reach it: a folder above it is closed \
         to them. Open that (o+x), or use --reset",
        servers.display()
    );
    let under = Path::new("/var/tmp");
    let under = if under.is_dir() { under.to_path_buf() } else { std::env::temp_dir() };
    let target = under.join(format!("marquee-{:016x}", rand::random::<u64>()));
    make_folder(&target, 0o711, None)?;
    fs::write(target.join(OWNER_FILE), root.as_os_str().as_encoded_bytes())?;
    std::os::unix::fs::symlink(&target, &servers)?;
    say(&format!(
        "{} is closed to the users that servers run as, so their data lie in {} (linked; --reset removes it)",
        root.display(),
        target.display()
    ));
    Ok(target)
}

fn belongs_to(target: &Path, root: &Path) -> bool {
    // The name first: a folder that anybody may write to must not be believed about another folder.
    let named = target.file_name().is_some_and(|n| n.to_string_lossy().starts_with("marquee-"));
    let ours = fs::symlink_metadata(target)
        .is_ok_and(|m| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw());
    named
        && ours
        && fs::read(target.join(OWNER_FILE)).is_ok_and(|text| text == root.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_platform_at_a_time_and_is_removed_whole() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let users = Users::find().unwrap();
        let folder = Folder::open(&data, false, &users, |_| {}).unwrap();
        let servers = folder.servers().to_path_buf();
        fs::write(servers.join("something"), "x").unwrap();
        let error = Folder::open(&data, false, &users, |_| {}).err().unwrap().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(remove(&data).is_err());
        drop(folder);
        // A second run finds the same place.
        let again = Folder::open(&data, false, &users, |_| {}).unwrap();
        assert_eq!(again.servers(), servers);
        drop(again);
        remove(&data).unwrap();
        assert!(!servers.exists() && !data.exists());
    }

    #[test]
    fn only_listed_content_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.txt"), "years of work").unwrap();
        let users = Users::default();
        drop(Folder::open(parent.path(), false, &users, |_| {}).unwrap());
        drop(Folder::open(parent.path(), true, &users, |_| {}).unwrap());
        remove(parent.path()).unwrap();
        assert!(parent.path().join("thesis.txt").exists());
    }
}
