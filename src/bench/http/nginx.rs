//! nginx serving a few files: what a seat map would cost if nobody ever bought a seat.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::children::{Running, Scratch, free_address};

pub const HOW_TO_INSTALL: &str = "nginx was not found, so there is nothing to compare with: apt-get install nginx-light, or name it in MARQUEE_NGINX";

pub struct Nginx {
    running: Running,
    _scratch: Scratch,
}

/// A file to serve; `gzip`: it is compressed already.
pub struct Served {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub gzip: bool,
}

/// Where it is, if it is anywhere.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("MARQUEE_NGINX").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .collect();
    named
        .into_iter()
        .chain(folders.into_iter().map(|folder| folder.join("nginx")))
        .find(|file| file.is_file())
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.running.end();
    }
}

impl Nginx {
    /// None where nginx is not installed. As many workers as cores, no log, the files' handles kept open.
    pub async fn start(files: &[Served]) -> anyhow::Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let (scratch, address) = (Scratch::new()?, free_address()?);
        // Its workers are not root, and must reach the files.
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755))?;
        for file in files {
            std::fs::write(scratch.path().join(file.name), &file.bytes)?;
        }
        let config = scratch.path().join("nginx.conf");
        std::fs::write(&config, configuration(scratch.path(), address, files))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guard", "--gently", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(&program).arg("-p").arg(scratch.path()).arg("-c").arg(&config);
        command.args(["-g", "daemon off;", "-e", "stderr"]);
        let running = Running::start(command, address, &scratch.path().join("log")).await?;
        Ok(Some(Self { running, _scratch: scratch }))
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }
}

fn configuration(folder: &Path, address: SocketAddr, files: &[Served]) -> String {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let user = if rustix::process::geteuid().is_root() { "user nobody nogroup;" } else { "" };
    let folder = folder.display();
    let locations: Vec<String> = files
        .iter()
        .map(|file| {
            let encoding = if file.gzip { "add_header Content-Encoding gzip;" } else { "" };
            format!("location = /{} {{ {encoding} }}", file.name)
        })
        .collect();
    format!(
        "{user} worker_processes {workers}; pid {folder}/pid;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
           keepalive_requests 100000000; open_file_cache max=16; default_type application/json;
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
           uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
           server {{ listen {address}; root {folder}; {} }}
         }}",
        locations.join(" ")
    )
}
