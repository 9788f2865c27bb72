//! A backlog in Kafka: how long it takes to be applied, and to be proven.
//!
//! A machine that is shared is at times half as fast as at others, for a minute or for an hour. So rowproof and the
//! bare writes and reads take turns, each as often as the others, and of each the best turn counts; of memory and
//! processor time the worst. With three turns it came about that one of the two met no minute of a quiet machine.

use crate::lab::Lab;
use crate::lab::process::Process;
use crate::table::{self, Change};
use crate::{RESIDENT_MAX, bare, bound, fence, migrate, task};
use anyhow::{Context, Result, ensure};
use rowproof::database::{Catalog, Server, Session, current_ts};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the fence is looked at. Each look is work for OceanBase, and at most counted to rowproof's time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The longest that the lab's feed may take to send the changes.
const FEED_PATIENCE: Duration = Duration::from_secs(900);

/// The numbers of connections on which the bare writes and reads are done, one in each turn.
const CONNECTIONS: [usize; 6] = [8, 4, 2, 8, 4, 2];

/// What was measured in one turn, or the best of several.
struct Turn {
    /// Seconds until all was applied, and until all was proven.
    applied: f64,
    proven: f64,
    /// Seconds of the same writes and reads with nothing else done.
    bare_writes: f64,
    bare_reads: f64,
    /// Microseconds of rowproof's processor time per change.
    cpu_per_change: f64,
    /// The peak of rowproof's resident memory in MiB.
    peak_mib: f64,
}

impl Turn {
    /// Returns the best times of two turns, and what rowproof took at most.
    fn best(self, other: Turn) -> Turn {
        Turn {
            applied: self.applied.min(other.applied),
            proven: self.proven.min(other.proven),
            bare_writes: self.bare_writes.min(other.bare_writes),
            bare_reads: self.bare_reads.min(other.bare_reads),
            cpu_per_change: self.cpu_per_change.max(other.cpu_per_change),
            peak_mib: self.peak_mib.max(other.peak_mib),
        }
    }

    /// Prints the figures beside their bounds, and tells whether all hold.
    fn holds(&self) -> bool {
        let most = 1.5 * self.bare_writes;
        let with_proof = most + 1.25 * self.bare_reads;
        let memory = RESIDENT_MAX as f64 / f64::from(1 << 20);
        let figures = [
            ("applied", self.applied, "s", most),
            ("applied and proven", self.proven, "s", with_proof),
            (
                "processor time of rowproof per change",
                self.cpu_per_change,
                "us",
                30.0,
            ),
            ("resident memory", self.peak_mib, "MiB", memory),
        ];
        let held = figures.map(|(what, measured, unit, most)| bound(what, measured, unit, most));
        held.iter().all(|holds| *holds)
    }
}

/// Measures a backlog of changes on distinct keys: 60 % inserts, 30 % updates, 10 % deletes.
pub async fn measure(lab_dir: Option<&Path>, changes: u64) -> Result<bool> {
    let mut best: Option<Turn> = None;
    for connections in CONNECTIONS {
        let lab = Lab::open(lab_dir, "bench_backlog")?;
        let turn = take_turn(&lab, changes, connections).await?;
        lab.clear().await?;
        best = Some(match best {
            Some(best) => best.best(turn),
            None => turn,
        });
    }
    println!(
        "backlog of {changes} changes, the best of {} turns:",
        CONNECTIONS.len()
    );
    Ok(best.is_some_and(|best| best.holds()))
}

async fn take_turn(lab: &Lab, changes: u64, connections: usize) -> Result<Turn> {
    let (updates, deletes) = (changes * 3 / 10, changes / 10);
    let before = updates + deletes;
    let inserts = changes - before;
    lab.forget().await?;
    lab.gather_statistics(false).await?;
    eprintln!("backlog: {before} rows before, then {changes} changes");
    table::create(&mut lab.source().await?, lab.name).await?;
    table::change(lab, &[(Change::Insert, 0, before)]).await?;
    lab.create_feed()?;
    let task = task(lab)?;
    let load = Process::start("load", &mut migrate(lab, &["--until", "load"]), &lab.dir)?;
    load.finish().await?;
    // The deleted keys come first, so that all images are behind them.
    let parts = [
        (Change::Delete, 0, deletes),
        (Change::Update, deletes, before),
        (Change::Insert, before, before + inserts),
    ];
    table::change(lab, &parts).await?;
    let mut source = Session::connect(&task.source, Server::TiDb).await?;
    let end = current_ts(&mut source).await?;
    wait_for_feed(lab, end).await?;
    let table = Catalog::read(&mut source, &task.scope).await?.tables.pop();
    let table = table.context("the measured table")?;

    let mut target = Session::connect(&task.target, Server::OceanBase).await?;
    lab.settle().await?;
    let (began, cpu) = (Instant::now(), lab.target_cpu_seconds()?);
    let mut process = Process::start(
        "follow",
        &mut migrate(lab, &["--until", "caught-up"]),
        &lab.dir,
    )?;
    while fence(&mut target, &task)
        .await?
        .is_none_or(|fence| fence.w < end)
    {
        process.running()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let applied = began.elapsed().as_secs_f64();
    let target_cpu = lab.target_cpu_seconds()? - cpu;
    let own_cpu = process.running()?.cpu_seconds;
    let cost = process.finish().await?;
    let proven = began.elapsed().as_secs_f64();

    let gone = (0..before).collect();
    let keys = (0..before + inserts).collect();
    let folded = bare::images(&task, table, gone, keys, deletes).await?;
    ensure!(
        folded.rows.len() as u64 == changes - deletes,
        "every image is there"
    );
    let (bare_writes, bare_cpu) = bare::writes(lab, &folded, before, connections).await?;
    let bare_reads = bare::reads(&task, &folded, connections).await?;
    println!(
        "applied in {applied:.2} s, proven in {proven:.2} s; bare writes {bare_writes:.2} s, bare reads {bare_reads:.2} s on \
         {connections} connections"
    );
    println!(
        "  processor time until all was applied: OceanBase {target_cpu:.1} s, rowproof {own_cpu:.1} s; of OceanBase for \
         the bare writes {bare_cpu:.1} s"
    );
    Ok(Turn {
        applied,
        proven,
        bare_writes,
        bare_reads,
        cpu_per_change: cost.cpu_seconds * 1e6 / changes as f64,
        peak_mib: cost.peak_bytes as f64 / f64::from(1 << 20),
    })
}

/// Waits until the lab's feed has sent everything up to a timestamp.
async fn wait_for_feed(lab: &Lab, end: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = lab.feed(&["status", "--topic", lab.name, "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let checkpoint = status[0]["checkpoint_ts"]
            .as_u64()
            .context("checkpoint_ts")?;
        if checkpoint > end {
            return Ok(());
        }
        ensure!(
            began.elapsed() < FEED_PATIENCE,
            "the lab's feed does not catch up"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
