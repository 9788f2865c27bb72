//! Comparing a whole table whose rows have no common order, by buckets.

use super::chunk_read::{Findings, Moment, cell_failure};
use super::link::Links;
use super::migrate::panicked;
use super::parted::Parted;
use crate::database::{Scan, source_whole, target_whole};
use crate::error::Result;
use crate::proof::{Buckets, Comparison, DifferingBuckets, RowHasher, Tally};
use crate::row::{DigestKey, Rows};
use crate::schema::Table;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The bytes of rows that are read before they are hashed.
const PIECE_BYTES: usize = 1 << 20;

/// Compares all rows of a table at a moment. Both sides are read once, each in the order that suits
/// it, and no row is kept (INV-8). Only where buckets differ, both are read again for the rows in
/// those: the snapshots are the same, and so are the rows.
///
/// # Errors
/// If a side cannot be read, or a cell is no value of its column's type.
pub async fn compare_whole(
    links: &mut Links,
    at: Moment<'_>,
    table: &Arc<Table>,
    key: &DigestKey,
    findings: &Findings<'_>,
) -> Result<Tally> {
    let (source, target) = at.sessions(links).await?;
    let (source, target) = tokio::join!(
        sum(source.open_scan(source_whole(table)), table, key),
        sum(target.open_scan(target_whole(table, at.s)), table, key)
    );
    let (source, target) = (source?, target?);
    if findings.ledger.is_some() {
        findings.add(&source.ledger());
    }
    let differing = source.differing(&target);
    let mut tally = Tally {
        source: source.total(),
        target: target.total(),
        ..Tally::default()
    };
    if differing.is_empty() {
        return Ok(tally);
    }
    let dir = findings.journal.dir();
    let differing = Arc::new(differing);
    let (source, target) = at.sessions(links).await?;
    let on_source = source.open_scan(source_whole(table));
    let on_target = target.open_scan(target_whole(table, at.s));
    let (source, target) = tokio::join!(
        collect(on_source, table, key, &differing, dir),
        collect(on_target, table, key, &differing, dir)
    );
    let found = compare_parts(source?, target?, table, key, findings).await?;
    tally.missing = found.missing;
    tally.extra = found.extra;
    tally.changed = found.changed;
    tally.relaxed = found.relaxed;
    if found.differences() == 0 && found.relaxed > 0 && found.source == found.target {
        // The buckets know no policies: what differed in them was accepted, all of it.
        tally.target = tally.source;
    }
    Ok(tally)
}

async fn compare_parts(
    source: Parted,
    target: Parted,
    table: &Arc<Table>,
    key: &DigestKey,
    findings: &Findings<'_>,
) -> Result<Tally> {
    let (send, mut receive) = mpsc::channel::<Comparison>(1);
    let (there, key) = (Arc::clone(table), key.clone());
    let comparing = tokio::task::spawn_blocking(move || {
        Parted::compare(source, target, &there, &key, &mut |comparison| {
            // When nobody receives any more, the error that made it so is reported there.
            let _ = send.blocking_send(comparison);
            Ok(())
        })
    });
    let mut tally = Tally::default();
    while let Some(comparison) = receive.recv().await {
        tally += findings.keep(&table.name, &comparison).await?;
    }
    comparing
        .await
        .map_err(|_| panicked("the comparison of a table"))??;
    Ok(tally)
}

/// Reads a side into buckets.
///
/// # Errors
/// If it cannot be read, or a cell is no value of its column's type.
pub async fn sum(mut scan: Scan<'_>, table: &Arc<Table>, key: &DigestKey) -> Result<Buckets> {
    let mut state = (Buckets::default(), RowHasher::new(table, key), Rows::new());
    loop {
        let whole = scan.fill(&mut state.2, PIECE_BYTES).await?;
        let there = Arc::clone(table);
        state = aside(move || {
            let (mut buckets, mut hasher, mut rows) = state;
            buckets
                .add(&mut hasher, &rows)
                .map_err(|error| cell_failure(&there, error))?;
            rows.clear();
            Ok((buckets, hasher, rows))
        })
        .await?;
        if whole {
            return Ok(state.0);
        }
    }
}

/// Reads those rows of a side that belong into buckets that differ.
async fn collect(
    mut scan: Scan<'_>,
    table: &Arc<Table>,
    key: &DigestKey,
    differing: &Arc<DifferingBuckets>,
    dir: &Path,
) -> Result<Parted> {
    let mut state = (Parted::new(dir), RowHasher::new(table, key), Rows::new());
    loop {
        let whole = scan.fill(&mut state.2, PIECE_BYTES).await?;
        let (there, differing) = (Arc::clone(table), Arc::clone(differing));
        state = aside(move || {
            let (mut parted, mut hasher, mut rows) = state;
            parted.add(&there, &mut hasher, &differing, &rows)?;
            rows.clear();
            Ok((parted, hasher, rows))
        })
        .await?;
        if whole {
            return Ok(state.0);
        }
    }
}

/// Does work that takes a while where it holds up no connection.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| panicked("the comparison of a table"))?
}
