//! hyper with nothing around it, serving a few bodies from memory: what any service that stands on it could do
//! at most on this machine.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::process::Command;

use super::children::{Running, Scratch, free_address};
use super::nginx::Served;

/// As gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];

pub struct Bare {
    running: Running,
    _scratch: Scratch,
}

impl Bare {
    /// In a process of its own, as what it is compared with.
    pub async fn start(files: &[Served]) -> anyhow::Result<Self> {
        let (scratch, address) = (Scratch::new()?, free_address()?);
        let folder = scratch.path().join("files");
        std::fs::create_dir(&folder)?;
        for file in files {
            std::fs::write(folder.join(file.name), &file.bytes)?;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guard", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(std::env::current_exe()?).args([
            "bench",
            "bare-server",
            "--listen",
            &address.to_string(),
        ]);
        command.arg(&folder);
        let running = Running::start(command, address, &scratch.path().join("log")).await?;
        Ok(Self { running, _scratch: scratch })
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }
}

/// Serves the files of a folder, read once, until it is killed.
pub async fn serve(listen: SocketAddr, folder: &Path) -> anyhow::Result<()> {
    let mut bodies = HashMap::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        bodies.insert(format!("/{}", file.file_name().display()), Bytes::from(std::fs::read(file.path())?));
    }
    let bodies = Arc::new(bodies);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let bodies = bodies.clone();
        let service = service_fn(move |request: Request<_>| {
            let answer = answer(bodies.get(request.uri().path()));
            async move { Ok::<_, Infallible>(answer) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(body: Option<&Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.cloned().unwrap_or_default()));
    let Some(body) = body else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if body.starts_with(GZIP) {
        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    }
    response
}
