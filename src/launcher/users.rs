//! Which user each process runs as. Started as root, nothing that the launcher starts stays root: Postgres
//! refuses it, and the others have no need of it. Started by anyone else, everything runs as that user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::parts::Service;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The users to switch to; all `None` unless started as root.
#[derive(Clone, Debug, Default)]
pub struct Users {
    postgres: Option<User>,
    redis: Option<User>,
    services: Option<User>,
}

impl Users {
    pub fn find() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::default());
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let Some(nobody) = lookup(&passwd, "nobody") else {
            anyhow::bail!(
                "started as root, Marquee runs its servers as an unprivileged user, and this machine has no \
                 `nobody`; start it as an ordinary user"
            );
        };
        Ok(Self {
            postgres: Some(lookup(&passwd, "postgres").unwrap_or_else(|| nobody.clone())),
            redis: Some(lookup(&passwd, "redis").unwrap_or_else(|| nobody.clone())),
            services: Some(nobody),
        })
    }

    pub fn of(&self, service: Service) -> Option<&User> {
        match service {
            Service::Postgres => self.postgres.as_ref(),
            Service::Redis => self.redis.as_ref(),
            _ => self.services.as_ref(),
        }
    }

    /// Whether processes run as users other than the launcher's.
    pub fn switch(&self) -> bool {
        self.services.is_some()
    }
}

fn lookup(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (&found, uid, gid) =
            (fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        (found == name && uid != 0).then(|| User { name: found.to_owned(), uid, gid })
    })
}

/// Whether any user may walk down to this (absolute) path. Deliberately blind to groups and ACLs: a wrong no
/// only costs a folder elsewhere.
pub fn anyone_reaches(path: &Path) -> bool {
    path.ancestors().skip(1).all(|parent| fs::metadata(parent).is_ok_and(|m| m.mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_from_passwd_and_are_never_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\nredis:x:102:105::/:/x\ntoor:x:0:0::/:/x\nbroken\n";
        assert_eq!(lookup(passwd, "redis"), Some(User { name: "redis".into(), uid: 102, gid: 105 }));
        assert_eq!(lookup(passwd, "root"), None);
        assert_eq!(lookup(passwd, "toor"), None);
        assert_eq!(lookup(passwd, "broken"), None);
    }

    #[test]
    fn a_closed_parent_is_seen() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!anyone_reaches(&folder.path().join("below")));
        assert!(anyone_reaches(Path::new("/usr")));
    }
}
