//! A running platform: what is in it, and how parts of it are killed, started and stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::RegionName;
use common::tls::authority::Authority;
use futures::future::join_all;
use rustix::process::Signal;

use super::configs::{self, Facts};
use super::control::{self, ControlServer};
use super::folder::Folder;
use super::options::Options;
use super::parts::{Part, Place, Service};
use super::ports::Ports;
use super::progress::Progress;
use super::run::{self, Run};
use super::secrets::Secrets;
use super::site::Site;
use super::spawn::{Process, Spawner};
use super::users::Users;
use super::{boot, files, prepare};

/// How long a process may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(12);

/// A platform that runs until [`Platform::stop`]. Dropped without, everything in it is killed.
#[derive(Clone)]
pub struct Platform {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub options: Options,
    pub regions: Vec<RegionName>,
    pub folder: Folder,
    pub users: Users,
    pub ports: Mutex<Ports>,
    pub secrets: Secrets,
    /// Vouches for our processes to each other.
    pub authority: Authority,
    pub progress: Progress,
    pub spawner: Spawner,
    pub http: reqwest::Client,
    pub processes: Mutex<BTreeMap<Part, Process>>,
    run: Mutex<Arc<Run>>,
    /// One kill, start or stop at a time.
    turn: tokio::sync::Mutex<()>,
    control: Mutex<Option<ControlServer>>,
}

impl Platform {
    /// Starts everything and waits until all of it is ready. On failure, what was started is stopped again.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let stop = options.stop.clone();
        let platform = Self::prepare(options).await?;
        let started = tokio::select! {
            result = platform.bring_up() => result,
            () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
        match started {
            Ok(()) => Ok(platform),
            Err(error) => {
                platform.stop().await;
                Err(error)
            }
        }
    }

    async fn prepare(options: Options) -> anyhow::Result<Self> {
        let users = Users::find()?;
        let progress = Progress::new(0, options.quiet);
        let folder = Folder::open(&options.data, options.reset, &users, |text| progress.line(text))?;
        let regions = prepare::regions(&folder, &options.regions)?;
        let ports = Ports::choose(folder.root(), &configs::port_names(&regions), options.port_base)?
            .at(&options.sites);
        let secrets = Secrets::open(folder.root(), &configs::secret_names(&regions))?;
        let spawner = Spawner::new(prepare::program(&options.program, &folder, &users)?)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                regions,
                folder,
                users,
                ports: Mutex::new(ports),
                secrets,
                authority: Authority::new()?,
                progress,
                spawner,
                http,
                processes: Mutex::default(),
                run: Mutex::default(),
                turn: tokio::sync::Mutex::new(()),
                control: Mutex::default(),
            }),
        })
    }

    async fn bring_up(&self) -> anyhow::Result<()> {
        let inner = &self.inner;
        let started = tokio::time::timeout(inner.options.patience, boot::all(inner)).await;
        started.map_err(|_| {
            anyhow::anyhow!("not ready within {:?}; the logs are in {}", inner.options.patience, inner.logs())
        })??;
        let mut run = inner.describe();
        run.accounts = vec![run::Account {
            username: "admin".to_owned(),
            password: inner.secrets.get("account-admin").to_owned(),
            role: "admin".to_owned(),
            region: None,
        }];
        if inner.options.demo {
            let accounts = crate::seed::demo(&run, inner.folder.root(), &inner.progress).await?;
            run.accounts.extend(accounts);
        }
        inner.publish(run)?;
        *lock(&inner.control) = Some(control::serve(self).await?);
        inner.progress.finish();
        Ok(())
    }

    /// What runs where, as in `run.json`.
    pub fn run(&self) -> Arc<Run> {
        lock(&self.inner.run).clone()
    }

    /// Where the platform's data, logs and `run.json` are.
    pub fn data(&self) -> &std::path::Path {
        self.inner.folder.root()
    }

    /// A log's file, named by its part (`regional-eu`, `global`).
    pub fn log(&self, part: &Part) -> PathBuf {
        self.inner.folder.log(&part.name())
    }

    /// Everything a platform has, whether it runs now or not.
    pub fn parts(&self) -> Vec<(Part, Option<u32>)> {
        let processes = lock(&self.inner.processes);
        self.inner
            .places()
            .iter()
            .flat_map(|place| place.services().iter().map(move |s| Part::new(*s, place)))
            .map(|part| {
                let pid = processes.get(&part).filter(|p| p.is_running()).map(|p| p.pid);
                (part, pid)
            })
            .collect()
    }

    /// `kill -9` of one service, or of all that goes when the place is lost.
    pub async fn kill(&self, place: &Place, service: Option<Service>) -> anyhow::Result<Vec<Part>> {
        let _turn = self.inner.turn.lock().await;
        let parts = self.inner.chosen(place, service)?;
        let running = self.inner.running(&parts);
        join_all(running.values().cloned().map(|process| async move { process.kill().await })).await;
        self.inner.republish()?;
        Ok(running.into_keys().collect())
    }

    /// Starts what is not running of one service or of a whole place, and waits until it is ready.
    pub async fn start_part(&self, place: &Place, service: Option<Service>) -> anyhow::Result<Vec<Part>> {
        let _turn = self.inner.turn.lock().await;
        let parts = self.inner.chosen(place, service)?;
        let running = self.inner.running(&parts);
        let missing: Vec<Part> = parts.into_iter().filter(|p| !running.contains_key(p)).collect();
        let started = boot::some(&self.inner, &missing).await;
        self.inner.republish()?;
        started.map(|()| missing)
    }

    /// Stops everything in order: who takes requests first, who keeps data last. What does not go within its
    /// time is killed.
    pub async fn stop(&self) {
        let control = lock(&self.inner.control).take();
        if let Some(control) = control {
            control.stop().await;
        }
        let _turn = self.inner.turn.lock().await;
        for services in [
            &[Service::Gateway][..],
            &[Service::Regional],
            &[Service::Raft, Service::Global, Service::Provider],
            &[Service::Redis, Service::Postgres],
        ] {
            let going: Vec<(Part, Process)> = lock(&self.inner.processes)
                .iter()
                .filter(|(part, process)| services.contains(&part.service) && process.is_running())
                .map(|(part, process)| (part.clone(), process.clone()))
                .collect();
            let progress = &self.inner.progress;
            join_all(going.into_iter().map(|(part, process)| async move {
                // Postgres: TERM would wait for clients to leave, INT ends their sessions.
                let signal = if part.service == Service::Postgres { Signal::INT } else { Signal::TERM };
                if !process.stop(signal, STOP_PATIENCE).await {
                    progress.alarm(&format!("{part} did not stop in time and was killed"));
                }
            }))
            .await;
        }
        self.inner.progress.finish();
        let _ = std::fs::remove_file(self.inner.folder.root().join(Run::FILE));
    }
}

impl Inner {
    pub fn places(&self) -> Vec<Place> {
        std::iter::once(Place::Global).chain(self.regions.iter().cloned().map(Place::Region)).collect()
    }

    pub fn logs(&self) -> String {
        self.folder.root().join("logs").display().to_string()
    }

    /// Where the place stands; none: on loopback.
    pub fn site(&self, place: &Place) -> Option<Site> {
        self.options.sites.get(place.as_str()).filter(|site| site.network.is_some()).cloned()
    }

    /// The part's own folder, below `servers/`.
    pub fn own_folder(&self, part: &Part) -> PathBuf {
        self.folder.servers().join(part.name())
    }

    pub fn with_facts<T>(&self, use_facts: impl FnOnce(&Facts<'_>) -> T) -> T {
        let ports = lock(&self.ports);
        use_facts(&Facts {
            options: &self.options,
            regions: &self.regions,
            ports: &ports,
            secrets: &self.secrets,
        })
    }

    fn chosen(&self, place: &Place, service: Option<Service>) -> anyhow::Result<Vec<Part>> {
        anyhow::ensure!(
            self.places().contains(place),
            "there is no `{place}` here; there are global and {}",
            self.regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", ")
        );
        match service {
            None => Ok(place.own_services().map(|s| Part::new(s, place)).collect()),
            Some(service) => {
                let there = place.services();
                anyhow::ensure!(
                    there.contains(&service),
                    "there is no {service} in {place}; there are {}",
                    there.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ")
                );
                Ok(vec![Part::new(service, place)])
            }
        }
    }

    fn running(&self, parts: &[Part]) -> BTreeMap<Part, Process> {
        lock(&self.processes)
            .iter()
            .filter(|(part, process)| parts.contains(part) && process.is_running())
            .map(|(part, process)| (part.clone(), process.clone()))
            .collect()
    }

    /// Everything about the platform but its accounts.
    fn describe(&self) -> Run {
        let mut run = self.with_facts(|facts| {
            let ports = facts.ports;
            let mut run = Run {
                provider: run::Provider {
                    url: ports.url("provider"),
                    api_key: self.secrets.get("provider-api-key").to_owned(),
                    webhook_secret: self.secrets.get("provider-webhook-secret").to_owned(),
                },
                mail: configs::mail_folder(&self.own_folder(&Part::new(Service::Global, &Place::Global))),
                ..Run::default()
            };
            for place in self.places() {
                run.postgres.insert(place.to_string(), facts.postgres_url(&place));
                let operations: BTreeMap<String, String> = place
                    .services()
                    .iter()
                    .filter_map(|service| {
                        let port = configs::operations_port(&Part::new(*service, &place))?;
                        Some((service.to_string(), ports.url(&port)))
                    })
                    .collect();
                run.operations.insert(place.to_string(), operations);
            }
            for region in &self.regions {
                run.gateways.insert(region.to_string(), ports.url(&format!("gateway-{region}")));
                run.redis.insert(region.to_string(), facts.redis_url(region));
            }
            run
        });
        run.processes = self.running_processes();
        run
    }

    fn running_processes(&self) -> Vec<run::Process> {
        lock(&self.processes)
            .iter()
            .filter(|(_, process)| process.is_running())
            .map(|(part, process)| run::Process {
                name: part.service.to_string(),
                region: part.place.to_string(),
                pid: process.pid,
            })
            .collect()
    }

    fn publish(&self, run: Run) -> anyhow::Result<()> {
        let mut current = lock(&self.run);
        run.write(self.folder.root())?;
        *current = Arc::new(run);
        Ok(())
    }

    /// Tells the world which processes there are now.
    fn republish(&self) -> anyhow::Result<()> {
        let mut run = Run::clone(&lock(&self.run));
        run.processes = self.running_processes();
        self.publish(run)
    }

    /// Says at once when a process ends that nobody asked to.
    pub fn report_death(self: &Arc<Self>, part: Part, process: &Process) {
        let (inner, process) = (Arc::downgrade(self), process.clone());
        tokio::spawn(async move {
            let status = process.ended().await;
            let Some(inner) = inner.upgrade() else { return };
            if process.end_was_expected() {
                return;
            }
            let tail = files::tail(&inner.folder.log(&part.name()), 12);
            inner.progress.alarm(&format!(
                "{part} (pid {}) died: {status}. The end of its log:\n{tail}    `marquee ctl --data {} start {} {}` \
                 starts it again.",
                process.pid,
                inner.folder.root().display(),
                part.place,
                part.service,
            ));
            // Before everything is up there is nothing published yet.
            let published = !lock(&inner.run).gateways.is_empty();
            if published && let Err(error) = inner.republish() {
                inner.progress.alarm(&format!("run.json is out of date: {error:#}"));
            }
        });
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while holding it")
}
