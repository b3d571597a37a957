//! The `marquee` command.
#![allow(clippy::print_stdout, reason = "this is where the program speaks to a person")]

mod benching;
mod cli;
mod commands;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    // Before any thread exists: the guard becomes another program.
    if let cli::Command::Guard { parent, gently, command } = &cli.command {
        return done(marquee::launcher::guard::run(*parent, *gently, command));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return done(Err(error.into())),
    };
    let result = runtime.block_on(commands::run(cli.command));
    // A connection that lingers must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done(result)
}

fn done(result: anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("marquee: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
