//! The `rowproof` program.

mod cli;

use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

// Rows are allocated by one thread and freed by another. glibc's allocator keeps what each thread has freed
// for that thread: following a backlog took 440 MiB of which 270 were in use (INV-8). One that gives memory
// back at once has it cleared anew for every batch; jemalloc keeps it for ten seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let filter = EnvFilter::try_from_env("ROWPROOF_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("rowproof: {error}");
            let kind = error
                .downcast_ref::<rowproof::Error>()
                .map(rowproof::Error::kind);
            ExitCode::from(kind.map_or(70, rowproof::ErrorKind::exit_code))
        }
    }
}

fn run(cli: cli::Cli) -> anyhow::Result<u8> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(hashing_threads())
        .build_global()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(cli.run())?)
}

/// Returns how many threads decode and hash: one core is left to the connections, and to a server on the same
/// machine. With as many threads as cores OceanBase spent a seventh more of its own time on the same writes.
fn hashing_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores - 1).max(1)
}
