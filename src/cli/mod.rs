//! The command line: one file per command, each a thin layer over the driver and the reports.

mod check;
mod diff;
mod limits;
mod migrate;
mod precheck;
mod repair;
mod resync;
mod serve;
mod status;

use clap::{Args, Parser, Subcommand};
use rowproof::task::{Scope, Task};
use rowproof::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Migrates TiDB to an OceanBase MySQL tenant and proves, row by row, that the two are the same.
///
/// Exit codes: 0 proven equal or done, 1 differences, 2 unproven or refused, 64 usage or task file,
/// 69 a server is unavailable, 70 broken invariant or lost lease, 75 interrupted and resumable.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Precheck(precheck::Precheck),
    Migrate(migrate::Migrate),
    Check(check::Check),
    Diff(diff::Diff),
    Repair(repair::Repair),
    Resync(resync::Resync),
    Limits(limits::LimitsCommand),
    Status(status::StatusCommand),
    Serve(serve::Serve),
}

/// What every command takes.
#[derive(Args, Debug)]
struct CommonArgs {
    /// The task file.
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        default_value = "task.toml"
    )]
    config: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    json: bool,
}

impl CommonArgs {
    fn task(&self) -> Result<Task> {
        Task::read(&self.config)
    }
}

impl Cli {
    /// Runs the command and returns its exit code.
    ///
    /// # Errors
    /// Whatever keeps the command from giving an answer.
    pub async fn run(self) -> Result<u8> {
        match self.command {
            Command::Precheck(command) => command.run().await,
            Command::Migrate(command) => command.run().await,
            Command::Check(command) => command.run().await,
            Command::Diff(command) => command.run().await,
            Command::Repair(command) => command.run().await,
            Command::Resync(command) => command.run().await,
            Command::Limits(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Serve(command) => command.run().await,
        }
    }
}

/// Returns a token that is cancelled by Ctrl-C or SIGTERM; a second one ends the process at once.
fn stop_on_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| Error::new(ErrorKind::Usage, format!("signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()));
            }
            eprintln!("stopping in order; a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(token)
}

/// Reads the tables named on the command line as patterns.
fn only(tables: &[String]) -> Result<Option<Scope>> {
    if tables.is_empty() {
        Ok(None)
    } else {
        Scope::new(tables, &[]).map(Some)
    }
}

fn print_json<T: Serialize>(document: &T) {
    let text = serde_json::to_string_pretty(document).expect("documents have string keys");
    println!("{text}");
}
