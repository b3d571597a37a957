//! Starting processes and watching them.
//!
//! Invariant: all are started by one thread that lives as long as the [`Spawner`], because the kernel's
//! parent-death signal (see [`super::guard`]) fires when the *thread* that started a process ends. Dropping
//! the spawner therefore ends whatever is still running. A process is signalled only by the task that would
//! reap it, so a pid is never used after it may belong to another.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::site::Site;
use super::users::User;

/// What to start.
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub user: Option<User>,
    pub folder: PathBuf,
    /// Standard output and error go there, appended.
    pub log: PathBuf,
    /// Ends by QUIT, not KILL, should the launcher die.
    pub gently: bool,
    /// Where it runs, when not on loopback.
    pub site: Option<Site>,
    pub environment: Vec<(String, String)>,
}

type Job = (Command, oneshot::Sender<std::io::Result<Child>>);

pub struct Spawner {
    /// The `marquee` program, for its `guard`.
    guard: PathBuf,
    jobs: std::sync::mpsc::Sender<Job>,
}

impl Spawner {
    /// Must be called inside the runtime that will watch the processes.
    pub fn new(guard: PathBuf) -> anyhow::Result<Self> {
        let (jobs, inbox) = std::sync::mpsc::channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let _runtime = runtime.enter();
            while let Ok((mut command, reply)) = inbox.recv() {
                // A caller that went away takes its child with it: kill_on_drop.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { guard, jobs })
    }

    /// The program that services are started from.
    pub fn program(&self) -> &std::path::Path {
        &self.guard
    }

    pub async fn start(&self, launch: Launch) -> anyhow::Result<Process> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&launch.log)
            .with_context(|| format!("the log {} cannot be opened", launch.log.display()))?;
        let mut words = launch.site.iter().flat_map(|site| site.enter(launch.user.as_ref()));
        let mut command = match words.next() {
            None => std::process::Command::new(&self.guard),
            Some(enter) => {
                let mut command = std::process::Command::new(enter);
                command.args(words).arg(&self.guard);
                command
            }
        };
        command.args(["guard", "--parent", &std::process::id().to_string()]);
        if launch.gently {
            command.arg("--gently");
        }
        command.arg("--").arg(&launch.program).args(&launch.arguments);
        command.current_dir(&launch.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env_clear().envs(clean_environment()).envs(launch.environment);
        // Ctrl-C at the terminal is for the launcher, which then stops everything in order.
        command.process_group(0);
        // Who enters a namespace becomes the user after that.
        if let (Some(user), None) = (&launch.user, &launch.site) {
            command.uid(user.uid).gid(user.gid);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let (reply, child) = oneshot::channel();
        self.jobs.send((command, reply)).ok().context("the spawner is gone")?;
        let child = child.await.context("the spawner is gone")?.with_context(|| {
            format!("{} cannot be started through {}", launch.program.display(), self.guard.display())
        })?;
        Process::watch(child)
    }
}

/// Nothing of the caller's environment but what finds programs, sets the log level and the threads.
fn clean_environment() -> Vec<(String, String)> {
    let mut environment =
        vec![("LANG".to_owned(), "C.UTF-8".to_owned()), ("TZ".to_owned(), "UTC".to_owned())];
    for name in ["PATH", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR", "TOKIO_WORKER_THREADS"] {
        environment.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
    }
    environment
}

/// A process under watch.
#[derive(Clone)]
pub struct Process {
    pub pid: u32,
    orders: mpsc::UnboundedSender<Signal>,
    ended: watch::Receiver<Option<ExitStatus>>,
    /// Somebody asked for its end.
    expected: Arc<AtomicBool>,
}

impl Process {
    fn watch(mut child: Child) -> anyhow::Result<Self> {
        let pid = child.id().context("the process ended at once")?;
        let (orders, mut inbox) = mpsc::unbounded_channel::<Signal>();
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status.unwrap_or_default(),
                    Some(signal) = inbox.recv() => {
                        // Not reaped yet, so the pid is still this child's.
                        if let Some(pid) = child.id().and_then(|p| Pid::from_raw(i32::try_from(p).ok()?)) {
                            let _ = rustix::process::kill_process_group(pid, signal);
                        }
                    }
                }
            };
            end.send_replace(Some(status));
        });
        Ok(Self { pid, orders, ended, expected: Arc::default() })
    }

    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    pub fn end_was_expected(&self) -> bool {
        self.expected.load(Ordering::SeqCst)
    }

    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        }
    }

    pub async fn kill(&self) {
        self.expected.store(true, Ordering::SeqCst);
        let _ = self.orders.send(Signal::KILL);
        self.ended().await;
    }

    /// Asks with `signal`, waits, then kills. Whether it went by itself.
    pub async fn stop(&self, signal: Signal, patience: Duration) -> bool {
        self.expected.store(true, Ordering::SeqCst);
        let _ = self.orders.send(signal);
        if tokio::time::timeout(patience, self.ended()).await.is_ok() {
            return true;
        }
        self.kill().await;
        false
    }
}
