//! Measures rowproof side by side with bare reads of the same SQL and with sync_diff_inspector, on
//! the real servers of a lab, and tells which of the promised bounds hold.
//!
//! `ROWPROOF_LAB_DIR=DIR cargo bench --bench side_by_side` with the directory of a running lab. Exit
//! codes: 0 every bound holds, 1 one is missed, 2 something could not be measured.

mod bare;
mod fill;
#[path = "../lab/mod.rs"]
mod lab;
mod peer;
mod report;
mod rounds;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// The database that is measured.
const DATABASE: &str = "bench";

/// Measures rowproof side by side with bare reads and with sync_diff_inspector.
#[derive(Clone, Debug, Parser)]
#[command(name = "side_by_side", max_term_width = 100)]
pub struct Options {
    /// The rows of the table; it is made anew when it has another number.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How many rounds are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The connections to each side; rowproof's default when not given.
    #[arg(long)]
    workers: Option<usize>,
    /// Write what was measured as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The directory of a running lab; without it, what ROWPROOF_LAB_DIR names.
    #[arg(long, value_name = "DIR")]
    lab: Option<PathBuf>,
    /// Measure another build of rowproof.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_rowproof"))]
    rowproof: PathBuf,
    /// Do not build and run sync_diff_inspector.
    #[arg(long)]
    no_peer: bool,
    /// Leave the migration's state, the copy on the target and the feed in place.
    #[arg(long)]
    keep: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Read the statements of this file and drop the rows; the program runs itself so.
    #[arg(long, value_name = "FILE", hide = true)]
    bare_reads: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(plan) = &options.bare_reads {
        return finish(runtime().and_then(|runtime| runtime.block_on(bare::run(plan))));
    }
    if !options.bench {
        eprintln!("side_by_side measures only under `cargo bench --bench side_by_side`");
        return ExitCode::SUCCESS;
    }
    finish(runtime().and_then(|runtime| runtime.block_on(measure(&options))))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

fn finish(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("side_by_side: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Measures everything and tells whether all bounds hold.
async fn measure(options: &Options) -> Result<bool> {
    let lab = lab::Lab::open(options.lab.as_deref(), DATABASE)?;
    let measured = tokio::select! {
        measured = rounds::measure(options, &lab) => measured,
        () = stopped() => Err(anyhow::anyhow!("stopped")),
    };
    // Whatever happened, nothing that was started or set stays.
    let restored = peer::restore(&lab).await;
    let cleared = match options.keep {
        true => Ok(()),
        false => lab.clear().await,
    };
    let measured = measured?;
    restored?;
    cleared?;
    println!("{}", report::table(&measured));
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&measured)?;
        std::fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(measured.all_bounds_hold())
}

/// Ends when the operator asks to stop.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("signals can be listened to");
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
