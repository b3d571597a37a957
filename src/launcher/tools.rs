//! Finding the programs of others on this machine.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Newest first; what each release is tested with.
const POSTGRES_MAJORS: [u32; 5] = [18, 17, 16, 15, 14];

/// The folder that holds `initdb` and `postgres`. Data made by one major version need that version again.
pub fn postgres(wanted_major: Option<u32>) -> anyhow::Result<PathBuf> {
    let majors: Vec<u32> =
        POSTGRES_MAJORS.into_iter().filter(|m| wanted_major.is_none_or(|w| w == *m)).collect();
    let mut places: Vec<PathBuf> =
        std::env::var_os("MARQUEE_POSTGRES_BIN").map(PathBuf::from).into_iter().collect();
    for major in &majors {
        for pattern in [
            "/usr/lib/postgresql/{}/bin",
            "/usr/pgsql-{}/bin",
            "/opt/homebrew/opt/postgresql@{}/bin",
            "/usr/local/opt/postgresql@{}/bin",
        ] {
            places.push(pattern.replace("{}", &major.to_string()).into());
        }
    }
    if wanted_major.is_none() {
        places.extend(path_folders());
    }
    places.into_iter().find(|p| p.join("initdb").is_file() && p.join("postgres").is_file()).with_context(|| {
        match wanted_major {
            Some(major) => format!(
                "the data folder was made with PostgreSQL {major}, which is not on this machine; install it, or use --reset"
            ),
            None => "no PostgreSQL server was found; run `make setup`, or install one (Debian and Ubuntu: \
                     apt-get install postgresql; macOS: brew install postgresql@17), or name its folder in \
                     MARQUEE_POSTGRES_BIN"
                .to_owned(),
        }
    })
}

/// Redis, or Valkey which speaks the same.
pub fn redis() -> anyhow::Result<PathBuf> {
    let mut folders = path_folders();
    folders.extend(["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from));
    ["redis-server", "valkey-server"]
        .into_iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|p| p.is_file())
        .context(
            "no Redis server was found; run `make setup`, or install one (Debian and Ubuntu: apt-get install \
             redis-server; macOS: brew install redis)",
        )
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The major version that made a Postgres data folder.
pub fn data_major(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}
