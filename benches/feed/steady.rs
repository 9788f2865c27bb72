//! A steady rate of changes: how old the newest fence and the newest proven fence are.

use crate::lab::process::Process;
use crate::lab::{Lab, run};
use crate::table::{self, Change};
use crate::{RESIDENT_MAX, bound, fence, migrate, task};
use anyhow::{Result, bail};
use rowproof::database::{Server, Session};
use rowproof::feed::physical_ms;
use rowproof::journal::{Journal, now_ms};
use rowproof::task::Task;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The rate that is promised, in changed rows a second.
const PROMISED: u64 = 3_000;

/// The rates that are tried, one after the other, until one fails.
const RATES: [u64; 6] = [PROMISED, 4_500, 6_000, 8_000, 11_000, 15_000];

/// The most that the ages may be at the 99th percentile, in seconds.
const AGE_MAX: (f64, f64) = (2.0, 5.0);

/// How often the ages are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a rate is kept before the ages count.
const WARM_UP: Duration = Duration::from_secs(5);

/// The rows of one transaction.
const TRANSACTION_ROWS: u64 = 20;

/// The connections that write.
const WRITERS: u64 = 4;

/// Measures rising rates.
pub async fn measure(lab: &Lab, seconds: u64) -> Result<bool> {
    lab.forget().await?;
    table::create(&mut lab.source().await?, lab.name).await?;
    table::change(lab, &[(Change::Insert, 0, 100_000)]).await?;
    lab.create_feed()?;
    let task = task(lab)?;
    let mut process = Process::start("steady", &mut migrate(lab, &[]), &lab.dir)?;
    let mut target = Session::connect(&task.target, Server::OceanBase).await?;
    while fence(&mut target, &task).await.is_err() {
        process.running()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (mut holds, mut highest) = (true, None);
    for rate in RATES {
        let (written, ages, proven) =
            keep_rate(lab, &task, &mut target, &mut process, rate, seconds).await?;
        let fits = ages <= AGE_MAX.0 && proven <= AGE_MAX.1;
        if rate == PROMISED {
            holds &= bound(
                "age of the newest fence at 3,000 rows/s, p99",
                ages,
                "s",
                AGE_MAX.0,
            );
            holds &= bound(
                "age of the newest proven fence at 3,000 rows/s, p99",
                proven,
                "s",
                AGE_MAX.1,
            );
        } else {
            println!("at {written} rows/s: fence {ages:.2} s, proven fence {proven:.2} s (p99)");
        }
        if !fits {
            break;
        }
        highest = highest.max(Some(written));
        if written * 10 < rate * 9 {
            println!("the source takes no more than {written} rows/s here");
            break;
        }
    }
    match highest {
        Some(rate) => println!("the highest rate at which both hold: {rate} rows/s"),
        None => println!("no rate at which both hold was found"),
    }
    let cost = process.stop().await?;
    let peak = cost.peak_bytes as f64 / f64::from(1 << 20);
    holds &= bound(
        "resident memory",
        peak,
        "MiB",
        RESIDENT_MAX as f64 / f64::from(1 << 20),
    );
    Ok(holds)
}

/// Writes at a rate and returns the rate that was reached, and both ages at the 99th percentile, in
/// seconds.
async fn keep_rate(
    lab: &Lab,
    task: &Task,
    target: &mut Session,
    process: &mut Process,
    rate: u64,
    seconds: u64,
) -> Result<(u64, f64, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (source, stop, name) = (lab.source().await?, Arc::clone(&stop), lab.name);
        writers.spawn(write(source, stop, name, writer, rate / WRITERS));
    }
    tokio::time::sleep(WARM_UP).await;
    let journal = Journal::open(&task.state_dir).await?;
    let began = Instant::now();
    let (mut ages, mut proven) = (Vec::new(), Vec::new());
    while began.elapsed().as_secs() < seconds {
        process.running()?;
        let now = now_ms();
        let age = |w: u64| (now - i64::try_from(physical_ms(w)).unwrap_or(now)).max(0);
        if let Some(fence) = fence(target, task).await? {
            ages.push(age(fence.w));
        }
        match journal.proven().await? {
            Some((fence, _)) => proven.push(age(fence.w)),
            None => bail!("nothing is proven"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    while let Some(writer) = writers.join_next().await {
        written += writer??;
    }
    let took = (began.elapsed() + WARM_UP).as_secs_f64();
    Ok((
        (written as f64 / took) as u64,
        percentile(&mut ages),
        percentile(&mut proven),
    ))
}

fn percentile(ages: &mut [i64]) -> f64 {
    ages.sort_unstable();
    let place = (ages.len() * 99 / 100).min(ages.len().saturating_sub(1));
    ages.get(place)
        .map_or(f64::INFINITY, |age| *age as f64 / 1_000.0)
}

/// Changes rows at a rate on one connection until it is told to stop, and returns how many.
async fn write(
    mut source: sqlx::mysql::MySqlConnection,
    stop: Arc<AtomicBool>,
    name: &'static str,
    writer: u64,
    rate: u64,
) -> Result<u64> {
    let began = Instant::now();
    let mut written = 0;
    // Each writer has keys of its own, so that none waits for another one's locks.
    let (base, mut next) = (writer * 25_000, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(written as f64 / rate.max(1) as f64);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            tokio::time::sleep(early).await;
        }
        let from = base + next % (25_000 - TRANSACTION_ROWS);
        run(
            &mut source,
            &Change::Update.sql(name, from, from + TRANSACTION_ROWS),
        )
        .await?;
        next += TRANSACTION_ROWS;
        written += TRANSACTION_ROWS;
    }
    Ok(written)
}
