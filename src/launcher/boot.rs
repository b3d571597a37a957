//! Bringing parts up: each waits for what it needs, everything else goes at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::{try_join_all, try_join3};

use super::parts::{Part, Place, Service};
use super::platform::{Inner, lock};
use super::spawn::{Launch, Process};
use super::{certificates, configs, files, postgres, redis};

/// How long one part may take until it is ready.
const PART_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(40);

/// The whole platform.
pub async fn all(inner: &Arc<Inner>) -> anyhow::Result<()> {
    let places = inner.places();
    let parts = places.iter().flat_map(|place| place.services().iter().map(move |s| Part::new(*s, place)));
    some(inner, &parts.collect::<Vec<_>>()).await
}

/// These parts: databases, registry and provider together; `global` as soon as its database is there; then
/// the regions' services, each taking the state of the others as it finds it.
pub async fn some(inner: &Arc<Inner>, parts: &[Part]) -> anyhow::Result<()> {
    inner.progress.add_total(parts.len() as u64);
    let of = |services: &[Service]| -> Vec<Part> {
        parts.iter().filter(|p| services.contains(&p.service)).cloned().collect()
    };
    let (global_postgres, postgres): (Vec<Part>, Vec<Part>) =
        of(&[Service::Postgres]).into_iter().partition(|p| p.place == Place::Global);
    let global = async {
        up_all(inner, global_postgres).await?;
        up_all(inner, of(&[Service::Global])).await
    };
    let others = up_all(inner, of(&[Service::Redis, Service::Raft, Service::Provider]));
    try_join3(global, up_all(inner, postgres), others).await?;
    up_all(inner, of(&[Service::Regional, Service::Gateway])).await
}

async fn up_all(inner: &Arc<Inner>, parts: Vec<Part>) -> anyhow::Result<()> {
    let mut starting = Vec::new();
    for part in parts {
        starting.push(up(inner.clone(), part));
    }
    try_join_all(starting).await?;
    Ok(())
}

/// Starts one part and waits until it is ready.
async fn up(inner: Arc<Inner>, part: Part) -> anyhow::Result<()> {
    match part.service {
        Service::Postgres => postgres_up(&inner, &part).await?,
        _ => {
            let launch = launch(&inner, &part)?;
            let process = start(&inner, &part, launch).await?;
            wait(&inner, &part, &process).await?;
        }
    }
    inner.progress.done(&format!("{part} is ready"));
    Ok(())
}

async fn start(inner: &Arc<Inner>, part: &Part, launch: Launch) -> anyhow::Result<Process> {
    lock(&inner.ports).release(&part.name());
    let process = inner.spawner.start(launch).await?;
    lock(&inner.processes).insert(part.clone(), process.clone());
    Ok(process)
}

async fn postgres_up(inner: &Arc<Inner>, part: &Part) -> anyhow::Result<()> {
    let name = part.name();
    let folder = inner.own_folder(part);
    let user = inner.users.of(Service::Postgres);
    files::make_folder(&folder, 0o700, user)?;
    let (host, port) = {
        let ports = lock(&inner.ports);
        (ports.host(&name), ports.get(&name))
    };
    let server = postgres::Server {
        name: name.clone(),
        folder,
        log: inner.folder.log(&name),
        user,
        password: inner.secrets.get(&name),
        host,
        port,
        site: inner.site(&part.place),
    };
    server.initialise(&inner.spawner).await?;
    let deadline = Instant::now() + PART_PATIENCE;
    let probe =
        Probe::Postgres { password: server.password.to_owned(), address: lock(&inner.ports).address(&name) };
    // A server that was killed leaves children that take a moment to notice; until then a new one refuses to
    // start on the same data.
    let process = loop {
        let process = start(inner, part, server.command()?).await?;
        let ready = poll(&process, deadline, &probe).await;
        match ready {
            Ok(()) => break process,
            Err(why) if process.is_running() || Instant::now() >= deadline => {
                return Err(not_ready(inner, part, &why));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    inner.report_death(part.clone(), &process);
    let schema = match part.place {
        Place::Global => migrations::Schema::Global,
        Place::Region(_) => migrations::Schema::Regional,
    };
    server.prepare(schema).await
}

fn launch(inner: &Inner, part: &Part) -> anyhow::Result<Launch> {
    let name = part.name();
    let user = inner.users.of(part.service);
    let folder = inner.own_folder(part);
    files::make_folder(&folder, 0o700, user)?;
    let log = inner.folder.log(&name);
    if part.service == Service::Redis {
        let ports = lock(&inner.ports);
        let at = (ports.host(&name), ports.get(&name));
        drop(ports);
        let launch = redis::command(&folder, log, user, inner.secrets.get(&name), at)?;
        return Ok(Launch { site: inner.site(&part.place), ..launch });
    }
    if part.service == Service::Global {
        for sent in [configs::mail_folder(&folder), configs::sms_folder(&folder)] {
            files::make_folder(&sent, 0o700, user)?;
            inner.folder.link_sent(&sent)?;
        }
    }
    certificates::write(&inner.authority, part, &folder, user)?;
    let text = inner
        .with_facts(|facts| facts.toml(part, &folder))?
        .with_context(|| format!("{part} has no configuration"))?;
    let config = folder.join("config.toml");
    files::write_private(&config, text.as_bytes(), user)?;
    let command = if part.service == Service::Provider { "test-provider" } else { part.service.as_str() };
    Ok(Launch {
        program: inner.spawner.program().to_path_buf(),
        arguments: vec![command.into(), "--config".into(), config.into()],
        user: user.cloned(),
        folder,
        log,
        gently: false,
        site: inner.site(&part.place),
        environment: Vec::new(),
    })
}

async fn wait(inner: &Arc<Inner>, part: &Part, process: &Process) -> anyhow::Result<()> {
    let probe = probe(inner, part);
    let ready = poll(process, Instant::now() + PART_PATIENCE, &probe).await;
    ready.map_err(|why| not_ready(inner, part, &why))?;
    inner.report_death(part.clone(), process);
    Ok(())
}

fn probe(inner: &Inner, part: &Part) -> Probe {
    let name = part.name();
    let ports = lock(&inner.ports);
    match (part.service, configs::operations_port(part)) {
        (Service::Redis, _) => {
            Probe::Redis { password: inner.secrets.get(&name).to_owned(), address: ports.address(&name) }
        }
        (_, Some(port)) => {
            Probe::Http { url: format!("{}/readyz", ports.url(&port)), http: inner.http.clone() }
        }
        (_, None) => Probe::Http { url: format!("{}/livez", ports.url(&name)), http: inner.http.clone() },
    }
}

/// How to ask a part whether it is ready.
enum Probe {
    Postgres { password: String, address: String },
    Redis { password: String, address: String },
    Http { url: String, http: reqwest::Client },
}

impl Probe {
    async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Postgres { password, address } => postgres::answers(password, address).await,
            Self::Redis { password, address } => redis::answers(password, address).await,
            Self::Http { url, http } => ready(http, url).await,
        }
    }
}

/// Asks again and again; the last "no" is the reason.
async fn poll(process: &Process, deadline: Instant, probe: &Probe) -> Result<(), String> {
    loop {
        if !process.is_running() {
            return Err(format!("it ended: {}", process.ended().await));
        }
        match probe.ask().await {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= deadline => return Err(why),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn ready(http: &reqwest::Client, url: &str) -> Result<(), String> {
    let answer = http.get(url).send().await.map_err(|_| "its operations port does not answer".to_owned())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let body: serde_json::Value = answer.json().await.unwrap_or_default();
    let missing: Vec<&str> =
        body["missing"].as_array().into_iter().flatten().filter_map(|m| m.as_str()).collect();
    Err(if missing.is_empty() { "it says that it is not ready".to_owned() } else { missing.join("; ") })
}

fn not_ready(inner: &Inner, part: &Part, why: &str) -> anyhow::Error {
    let log = inner.folder.log(&part.name());
    anyhow::anyhow!("{part} is not ready: {why}\nThe end of {}:\n{}", log.display(), files::tail(&log, 12))
}
