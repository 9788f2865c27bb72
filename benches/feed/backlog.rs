//! A backlog in Kafka: how long it takes to be applied, and to be proven.

use crate::lab::Lab;
use crate::lab::process::Process;
use crate::table::{self, Change};
use crate::{RESIDENT_MAX, bare, bound, fence, migrate, task};
use anyhow::{Context, Result, ensure};
use rowproof::database::{Catalog, Server, Session, current_ts};
use std::time::{Duration, Instant};

/// How often the fence is looked at. Each look is work for OceanBase, and at most counted to rowproof's time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The longest that the lab's feed may take to send the changes.
const FEED_PATIENCE: Duration = Duration::from_secs(900);

/// Measures a backlog of changes on distinct keys: 60 % inserts, 30 % updates, 10 % deletes.
pub async fn measure(lab: &Lab, changes: u64) -> Result<bool> {
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
    let whole = began.elapsed().as_secs_f64();

    let gone = (0..before).collect();
    let keys = (0..before + inserts).collect();
    let folded = bare::images(&task, table, gone, keys, deletes).await?;
    ensure!(
        folded.rows.len() as u64 == changes - deletes,
        "every image is there"
    );
    let (writes, bare_cpu) = bare::writes(lab, &folded, before).await?;
    let reads = bare::reads(&task, &folded).await?.as_secs_f64();
    println!("backlog of {changes} changes: bare writes {writes:.2} s, bare reads {reads:.2} s");
    println!(
        "processor time until all was applied: OceanBase {target_cpu:.1} s (bare writes {bare_cpu:.1} s), rowproof {own_cpu:.1} s"
    );
    let most = 1.5 * writes;
    let mut holds = bound("applied", applied, "s", most);
    holds &= bound("applied and proven", whole, "s", most + 1.25 * reads);
    let each = cost.cpu_seconds * 1e6 / changes as f64;
    holds &= bound("processor time of rowproof per change", each, "us", 30.0);
    let peak = cost.peak_bytes as f64 / f64::from(1 << 20);
    holds &= bound(
        "resident memory",
        peak,
        "MiB",
        RESIDENT_MAX as f64 / f64::from(1 << 20),
    );
    Ok(holds)
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
