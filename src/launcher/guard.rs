//! `marquee guard`: stands before every process that the launcher starts, and ties its life to the
//! launcher's. Even `kill -9` of the launcher leaves nothing behind.
//!
//! On Linux it asks the kernel for a signal at the parent's death and becomes the program; the wish outlives
//! exec. The kernel means the parent *thread*: see [`super::spawn`]. Elsewhere it stays and watches.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Context;
use rustix::process::{Pid, Signal};

/// Runs `command`, which dies with `parent`. Returns only what went wrong.
pub fn run(parent: u32, gently: bool, command: &[OsString]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("there is nothing to guard")?;
    let mut command = Command::new(program);
    command.args(arguments);
    // Postgres ends its own children on QUIT and would leave them to notice on KILL.
    let signal = if gently { Signal::QUIT } else { Signal::KILL };
    stay_with(parent, signal, command)
}

/// A parent that died before the kernel was asked has left us to another process.
fn parent_is(parent: u32) -> bool {
    rustix::process::getppid().map(Pid::as_raw_pid) == i32::try_from(parent).ok()
}

#[cfg(target_os = "linux")]
fn stay_with(parent: u32, signal: Signal, mut command: Command) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    anyhow::ensure!(parent_is(parent), "the launcher is gone");
    let error = command.exec();
    Err(error).with_context(|| format!("{} cannot be run", command.get_program().to_string_lossy()))
}

#[cfg(not(target_os = "linux"))]
fn stay_with(parent: u32, signal: Signal, mut command: Command) -> anyhow::Result<()> {
    // The launcher signals our whole process group, so the child hears it by itself.
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has a pid")?;
    loop {
        if let Some(status) = child.try_wait()? {
            std::process::exit(status.code().unwrap_or(1));
        }
        if !parent_is(parent) {
            let _ = rustix::process::kill_process(pid, signal);
            child.wait()?;
            anyhow::bail!("the launcher is gone");
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
