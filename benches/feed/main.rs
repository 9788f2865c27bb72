//! Measures how fast a feed is applied and proven, on the real servers of a lab, beside the same
//! writes and reads with nothing else done.
//!
//! `ROWPROOF_LAB_DIR=DIR cargo bench --bench feed` with the directory of a running lab. Exit codes:
//! 0 every bound holds, 1 one is missed, 2 something could not be measured.

mod backlog;
mod bare;
#[path = "../lab/mod.rs"]
mod lab;
mod steady;
mod table;

use anyhow::{Result, bail};
use clap::Parser;
use lab::Lab;
use rowproof::fence::{Fence, FenceState};
use rowproof::task::Task;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The resident memory that rowproof may take in all of this.
const RESIDENT_MAX: u64 = 400 << 20;

/// Measures how fast a feed is applied and proven.
#[derive(Clone, Debug, Parser)]
#[command(name = "feed", max_term_width = 100)]
pub struct Options {
    /// The changes of the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    changes: u64,
    /// How long each steady rate is kept, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The directory of a running lab; without it, what ROWPROOF_LAB_DIR names.
    #[arg(long, value_name = "DIR")]
    lab: Option<PathBuf>,
    /// Measure only the backlog.
    #[arg(long)]
    no_steady: bool,
    /// Measure only the steady rates.
    #[arg(long)]
    no_backlog: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        eprintln!("feed measures only under `cargo bench --bench feed`");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(measure(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("feed: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn measure(options: &Options) -> Result<bool> {
    let mut holds = true;
    if !options.no_backlog {
        holds &= backlog::measure(options.lab.as_deref(), options.changes).await?;
    }
    if !options.no_steady {
        let lab = Lab::open(options.lab.as_deref(), "bench_steady")?;
        holds &= steady::measure(&lab, options.seconds).await?;
        lab.clear().await?;
    }
    Ok(holds)
}

/// Writes the task file of a fresh migration and reads it.
fn task(lab: &Lab) -> Result<Task> {
    let path = lab.dir.join("task.toml");
    std::fs::write(&path, lab.task_text(None)?)?;
    Ok(Task::read(&path)?)
}

/// Returns `rowproof migrate`, with these arguments.
fn migrate(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowproof"));
    command.arg("migrate").args(arguments);
    command.arg("-c").arg(lab.dir.join("task.toml"));
    command
}

/// Returns the newest fence of a task.
async fn fence(target: &mut rowproof::database::Session, task: &Task) -> Result<Option<Fence>> {
    match rowproof::database::newest_fence(target, &task.name).await? {
        Some((row, fence)) => Ok((row.state == FenceState::Complete).then_some(fence)),
        None => bail!("the migration stands at no fence"),
    }
}

/// Prints a figure beside its bound, and tells whether it holds.
fn bound(what: &str, measured: f64, unit: &str, most: f64) -> bool {
    let holds = measured <= most;
    let word = if holds { "holds" } else { "MISSED" };
    println!("{what:<58} {measured:>9.2} {unit:<4} bound {most:>8.2}  {word}");
    holds
}
