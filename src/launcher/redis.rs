//! One private Redis server: a cache that keeps nothing on disk, reached over loopback with a password.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::files;
use super::spawn::Launch;
use super::tools;
use super::users::User;

pub fn url(password: &str, address: &str) -> String {
    format!("redis://:{password}@{address}/")
}

pub fn command(
    folder: &Path,
    log: PathBuf,
    user: Option<&User>,
    password: &str,
    (host, port): (Ipv4Addr, u16),
) -> anyhow::Result<Launch> {
    let program = tools::redis()?;
    let config = folder.join("redis.conf");
    let text = format!(
        "bind {host}\nport {port}\nprotected-mode yes\nrequirepass {password}\nsave \"\"\nappendonly no\n\
         maxmemory 64mb\nmaxmemory-policy allkeys-lru\ndaemonize no\ndir \"{}\"\nlogfile \"\"\n",
        folder.display()
    );
    files::write_private(&config, text.as_bytes(), user)?;
    Ok(Launch {
        program,
        arguments: vec![config.into()],
        user: user.cloned(),
        folder: folder.to_path_buf(),
        log,
        gently: false,
        site: None,
        environment: Vec::new(),
    })
}

/// Whether it answers now, with our password.
pub async fn answers(password: &str, address: &str) -> Result<(), String> {
    let ask = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        stream.read_line(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(2), ask).await {
        Ok(Ok(answer)) if answer == "+OK\r\n+PONG\r\n" => Ok(()),
        Ok(Ok(answer)) => Err(format!("answered {}", answer.trim())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 2 s".to_owned()),
    }
}
