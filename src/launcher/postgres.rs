//! One private Postgres server: made once, started many times, reached over loopback with a password only.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::files;
use super::site::Site;
use super::spawn::{Launch, Spawner};
use super::tools;
use super::users::User;

pub const ROLE: &str = "marquee";
const DATABASE: &str = "marquee";

/// What one server needs to be known by.
pub struct Server<'a> {
    pub name: String,
    /// Its own folder; the data lie in `data/` below.
    pub folder: PathBuf,
    pub log: PathBuf,
    pub user: Option<&'a User>,
    pub password: &'a str,
    pub host: Ipv4Addr,
    pub port: u16,
    pub site: Option<Site>,
}

pub fn url(password: &str, address: &str) -> String {
    format!("postgres://{ROLE}:{password}@{address}/{DATABASE}")
}

/// Whether it answers queries now.
pub async fn answers(password: &str, address: &str) -> Result<(), String> {
    let pool = migrations::pool(&admin_url(password, address), 1).map_err(|e| e.to_string())?;
    let client = pool.get().await.map_err(|e| e.to_string())?;
    client.simple_query("SELECT 1").await.map_err(|e| e.to_string())?;
    Ok(())
}

/// The database that every server has.
fn admin_url(password: &str, address: &str) -> String {
    format!("postgres://{ROLE}:{password}@{address}/postgres")
}

impl Server<'_> {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn launch(&self, program: &Path, arguments: Vec<OsString>) -> Launch {
        Launch {
            program: program.to_path_buf(),
            arguments,
            user: self.user.cloned(),
            folder: self.folder.clone(),
            log: self.log.clone(),
            gently: true,
            site: self.site.clone(),
            environment: Vec::new(),
        }
    }

    /// Runs initdb unless that has been done. An interrupted one leaves nothing that looks finished.
    pub async fn initialise(&self, spawner: &Spawner) -> anyhow::Result<()> {
        if tools::data_major(&self.data()).is_some() {
            return Ok(());
        }
        let initdb = tools::postgres(None)?.join("initdb");
        let unfinished = self.folder.join("data.new");
        let password_file = self.folder.join("password");
        files::write_private(&password_file, self.password.as_bytes(), self.user)?;
        // C.UTF-8 folds case beyond ASCII and sorts by code point; not every system has it.
        let mut done = false;
        for locale in ["C.UTF-8", "en_US.UTF-8", "C"] {
            if unfinished.exists() {
                std::fs::remove_dir_all(&unfinished)?;
            }
            let mut arguments: Vec<OsString> = vec!["-D".into(), unfinished.clone().into()];
            arguments.extend(["--username", ROLE, "--auth=scram-sha-256", "--encoding=UTF8"].map(Into::into));
            arguments.extend([format!("--locale={locale}").into(), "--data-checksums".into()]);
            let mut pwfile = OsString::from("--pwfile=");
            pwfile.push(&password_file);
            arguments.push(pwfile);
            if spawner.start(self.launch(&initdb, arguments)).await?.ended().await.success() {
                done = true;
                break;
            }
        }
        let _ = std::fs::remove_file(&password_file);
        anyhow::ensure!(done, "initdb failed for {}:\n{}", self.name, files::tail(&self.log, 15));
        if !self.host.is_loopback() {
            self.let_others_in(&unfinished)?;
        }
        std::fs::rename(&unfinished, self.data()).context("the new database folder cannot be moved")?;
        Ok(())
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// From other addresses too, standbys among them; by password as ever.
    fn let_others_in(&self, data: &Path) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
        Ok(writeln!(file, "host all,replication all all scram-sha-256")?)
    }

    /// The server itself. Durable as in production; small, since several run on one machine.
    pub fn command(&self) -> anyhow::Result<Launch> {
        let postgres = tools::postgres(tools::data_major(&self.data()))?.join("postgres");
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data().into()];
        for setting in [
            format!("port={}", self.port),
            format!("cluster_name=marquee-{}", self.name),
            format!("listen_addresses={}", self.host),
            "unix_socket_directories=".into(),
            "wal_level=replica".into(),
            "shared_buffers=32MB".into(),
            "max_connections=100".into(),
            "max_wal_size=256MB".into(),
            "jit=off".into(),
            "timezone=UTC".into(),
            "log_timezone=UTC".into(),
            "logging_collector=off".into(),
            "log_destination=stderr".into(),
            // Its details tell values: the address that is taken already.
            "log_error_verbosity=terse".into(),
        ] {
            arguments.extend(["-c".into(), setting.into()]);
        }
        Ok(self.launch(&postgres, arguments))
    }

    /// Makes the database and brings its schema up to date.
    pub async fn prepare(&self, schema: migrations::Schema) -> anyhow::Result<()> {
        let pool = migrations::pool(&admin_url(self.password, &self.address()), 1)?;
        let client = pool.get().await?;
        let there = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE]).await?;
        if there.is_none() {
            client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        }
        let started = Instant::now();
        let applied = schema
            .migrate(&url(self.password, &self.address()))
            .await
            .with_context(|| format!("the schema of {}", self.name))?;
        if applied > 0 && started.elapsed() > Duration::from_secs(5) {
            tracing::info!(server = %self.name, applied, "migrations took long");
        }
        Ok(())
    }
}
