//! The order of the measurement.

use crate::Options;
use crate::bare::Cuts;
use crate::fill::{fill, text_bytes};
use crate::lab::Lab;
use crate::lab::process::{Cost, Process};
use crate::peer::Peer;
use crate::report::{Measured, Round};
use anyhow::{Context, Result};
use rowproof::database::{Server, Session, newest_fence};
use rowproof::task::Task;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a migration may take from its start to its first fence while it follows.
const FOLLOWING_PATIENCE: Duration = Duration::from_secs(60);

/// How long it is waited for the machine to become quiet before rounds begin.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);

/// The part of the processors' time below which the machine is quiet.
const QUIET: f64 = 0.35;

/// Fills, migrates and measures.
pub async fn measure(options: &Options, lab: &Lab) -> Result<Measured> {
    fill(lab, options.rows).await?;
    let bytes = text_bytes(lab).await?;
    let peer = if options.no_peer {
        None
    } else {
        Peer::prepare(lab).await?
    };
    lab.forget().await?;
    lab.create_feed()?;
    let bench = Bench::new(options, lab)?;
    become_quiet().await?;
    eprintln!("migrate: load and proof");
    let load = bench
        .start("load", &["migrate", "--until", "load", "--json"])?
        .finish()
        .await?;
    eprintln!(
        "migrate: {} rows loaded and proven in {:.1} s",
        options.rows, load.seconds
    );
    let mut migration = bench.start("follow", &["migrate", "--json"])?;
    bench.wait_until_it_follows(&mut migration).await?;
    let cuts = Cuts::make(&bench.task).await?;
    // Neither the first check nor the first reads are counted: caches are cold and code is new.
    bench.check().await?;
    bench.bare(&cuts).await?;
    let quiet = become_quiet().await?;
    let mut rounds = Vec::new();
    for place in 0..options.rounds {
        let round = bench.round(place, &cuts, peer.as_ref()).await?;
        migration.running()?;
        eprintln!("round {} of {}: {round}", place + 1, options.rounds);
        rounds.push(round);
    }
    let follow = migration.stop().await?;
    Ok(Measured {
        rows: options.rows,
        text_bytes: bytes,
        workers: bench.task.workers,
        chunks: cuts.len(),
        quiet,
        load,
        follow,
        rounds,
    })
}

/// What every part of the measurement needs.
struct Bench<'a> {
    lab: &'a Lab,
    rowproof: PathBuf,
    task: Task,
    task_path: PathBuf,
}

impl Bench<'_> {
    fn new<'a>(options: &Options, lab: &'a Lab) -> Result<Bench<'a>> {
        let text = lab.task_text(options.workers)?;
        let task_path = lab.dir.join("task.toml");
        std::fs::write(&task_path, &text)?;
        let task = Task::parse(&text).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Bench {
            lab,
            rowproof: options.rowproof.clone(),
            task,
            task_path,
        })
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(&self.rowproof);
        command.args(arguments).arg("-c").arg(&self.task_path);
        Process::start(name, &mut command, &self.lab.dir)
    }

    /// Waits for a fence that the running migration made.
    async fn wait_until_it_follows(&self, migration: &mut Process) -> Result<()> {
        let mut target = Session::connect(&self.task.target, Server::OceanBase).await?;
        let first = newest_fence(&mut target, &self.task.name)
            .await?
            .context("a fence")?
            .1;
        let began = Instant::now();
        while began.elapsed() < FOLLOWING_PATIENCE {
            migration.running()?;
            let newest = newest_fence(&mut target, &self.task.name)
                .await?
                .context("a fence")?
                .1;
            if newest.w > first.w {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("the migration makes no fence while it follows")
    }

    /// Runs what is compared, one after the other; who comes first changes from round to round.
    async fn round(&self, place: usize, cuts: &Cuts, peer: Option<&Peer>) -> Result<Round> {
        let mut round = Round::default();
        for step in 0..3 {
            match (step + place) % 3 {
                0 => round.check = self.check().await?,
                1 => round.bare = self.bare(cuts).await?,
                _ => {
                    if let Some(peer) = peer {
                        round.sync_diff = Some(peer.run(self.lab).await?);
                    }
                }
            }
        }
        Ok(round)
    }

    /// Runs `rowproof check`, which must find everything equal.
    async fn check(&self) -> Result<Cost> {
        self.start("check", &["check", "--json"])?.finish().await
    }

    /// Runs the bare reader on the newest fence.
    async fn bare(&self, cuts: &Cuts) -> Result<Cost> {
        let path = self.lab.dir.join("plan.json");
        std::fs::write(&path, serde_json::to_vec(&cuts.plan(&self.task).await?)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare-reads").arg(&path);
        Process::start("bare", &mut command, &self.lab.dir)?
            .finish()
            .await
    }
}

/// Waits until the machine has little else to do, and tells whether it has.
async fn become_quiet() -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < QUIET_PATIENCE {
        let (busy, total) = processor_ticks()?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (busy_then, total_then) = processor_ticks()?;
        if ((busy_then - busy) as f64) < (total_then - total) as f64 * QUIET {
            return Ok(true);
        }
    }
    eprintln!("the machine is busy with other work: the figures are worth less");
    Ok(false)
}

/// Returns the busy and all ticks of the processors since the machine started.
fn processor_ticks() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let total = ticks.iter().take(8).sum();
    // The fourth and fifth are idle time and time waiting for disks.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((total - idle, total))
}
