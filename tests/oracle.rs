//! The databases are the oracle: random tables with random values are migrated by load and by feed,
//! and both sides are compared with plain SQL that shares no code with rowproof.

mod column;
mod document;
mod roads;
mod table;
mod text;

use crate::lab::{Lab, run};
use crate::plain_sql::assert_same_rows;
use fastrand::Rng;
use std::time::{Duration, Instant};
use table::RandomTable;

/// How many tables a round migrates.
const TABLES: usize = 12;

/// Tells how long to go on: what ROWPROOF_ORACLE_SECONDS says, or else the given time.
fn budget(default: u64) -> Duration {
    let seconds = std::env::var("ROWPROOF_ORACLE_SECONDS").ok();
    Duration::from_secs(
        seconds
            .and_then(|text| text.parse().ok())
            .unwrap_or(default),
    )
}

/// Returns the seed: that of ROWPROOF_ORACLE_SEED, or else a new one.
fn seed() -> u64 {
    let given = std::env::var("ROWPROOF_ORACLE_SEED").ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

/// Migrates random tables until the time is up; the first round has the seed itself, so that the
/// seed of a round that failed is enough to see it again.
async fn rounds(time: Duration) {
    let began = Instant::now();
    let mut seed = seed();
    let mut count = 0;
    while count == 0 || began.elapsed() < time {
        eprintln!(
            "oracle: ROWPROOF_ORACLE_SEED={seed} ROWPROOF_ORACLE_SECONDS=0 repeats this round"
        );
        round(seed).await;
        seed = seed.wrapping_add(1);
        count += 1;
    }
    eprintln!("oracle: {count} rounds of {TABLES} tables without a difference");
}

async fn round(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let lab = Lab::new("oracle").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    // What the source may hold from other days: zero and invalid dates, error values, cut texts.
    run(
        &mut source,
        "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'",
    )
    .await;
    let mut tables: Vec<RandomTable> = (0..TABLES)
        .map(|place| RandomTable::random(&mut rng, place))
        .collect();
    for table in &mut tables {
        run(&mut source, &table.create()).await;
        for sql in table.fill(&mut rng) {
            run(&mut source, &sql).await;
        }
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    for table in &mut tables {
        for sql in table.change(&mut rng) {
            run(&mut source, &sql).await;
        }
    }
    let check = lab.run(&["check", "--json"]);
    if check.code != 0 {
        let diff = lab.run(&["diff"]);
        panic!(
            "seed {seed}: {}\n{}\n{}",
            check.stdout, check.stderr, diff.stdout
        );
    }
    assert_same_rows(&lab).await;
    roads::assert_one_form(&lab).await;
    assert_eq!(migrating.stop(), 0, "seed {seed}: {}", migrating.log());
    let status = lab.run(&["status", "--json"]).stdout;
    assert!(
        !status.contains("\"different\"") && !status.contains("\"unproven\""),
        "seed {seed}: {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn random_tables_arrive_as_they_are() {
    rounds(budget(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: `make soak`"]
async fn random_tables_arrive_as_they_are_for_half_an_hour() {
    rounds(budget(1_800)).await;
}
