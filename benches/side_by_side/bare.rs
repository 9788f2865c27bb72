//! The bare reader: the statements of a check on as many connections, every row dropped.
//!
//! It runs as a process of its own, so that its time, processor time and memory are counted as
//! rowproof's are.

use crate::lab::{connect, run as execute};
use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rowproof::chunk::{Key, Range, Walk, stripes};
use rowproof::database::{Catalog, Server, Session, key_bounds, newest_fence};
use rowproof::fence::{Fence, FenceState};
use rowproof::row::Rows;
use rowproof::schema::Table;
use rowproof::task::Task;
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The span of keys below which a check reads a table as one stripe.
const STRIPE_KEYS: i128 = 50_000;

/// The chunks of a check, as it cuts them. They depend on the rows and not on the fence.
#[derive(Debug)]
pub struct Cuts {
    table: Table,
    stripes: Vec<Vec<Cut>>,
}

/// One chunk: what is asked of the source, and the keys that it turned out to cover.
#[derive(Debug)]
struct Cut {
    read: Range,
    asked: usize,
    chunk: Range,
}

impl Cuts {
    /// Cuts the table as a check would, with the library's own functions.
    pub async fn make(task: &Task) -> Result<Cuts> {
        let mut source = Session::connect(&task.source, Server::TiDb).await?;
        let mut target = Session::connect(&task.target, Server::OceanBase).await?;
        let fence = fence(&mut target, task).await?;
        source.set_snapshot(Some(fence.w)).await?;
        let mut catalog = Catalog::read(&mut source, &task.scope).await?;
        let table = catalog.tables.pop().context("the measured table")?;
        let workers = u32::try_from(task.workers)?;
        let ranges = match key_bounds(&mut source, &table).await? {
            Some((low, high)) if high - low >= STRIPE_KEYS => stripes(low, high, workers),
            _ => vec![Range::default()],
        };
        let mut stripes = Vec::new();
        for range in ranges {
            let mut walk = Walk::new(range, table.row_bytes_estimate);
            let mut cuts = Vec::new();
            while let Some((read, asked)) = walk.next_read() {
                let mut rows = Rows::new();
                source
                    .scan(read.source_sql(&table, Some(asked)), &mut rows)
                    .await?;
                let exhausted = rows.len() < asked;
                let last = rows.len().checked_sub(1);
                let last = last.map(|last| Key::of(&table, rows.packed(last)));
                let chunk = walk.on_read(&rows, last, exhausted).range;
                cuts.push(Cut { read, asked, chunk });
            }
            stripes.push(cuts);
        }
        Ok(Cuts { table, stripes })
    }

    /// Returns how many chunks there are.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(Vec::len).sum()
    }

    /// Returns the statements at the newest fence.
    pub async fn plan(&self, task: &Task) -> Result<Plan> {
        let mut target = Session::connect(&task.target, Server::OceanBase).await?;
        let fence = fence(&mut target, task).await?;
        let pair = |cut: &Cut| Pair {
            source: cut.read.source_sql(&self.table, Some(cut.asked)).sql,
            target: cut.chunk.target_sql(&self.table, Some(fence.s)).sql,
        };
        let stripes = self
            .stripes
            .iter()
            .map(|cuts| cuts.iter().map(pair).collect())
            .collect();
        Ok(Plan {
            source_port: task.source.port,
            target_port: task.target.port,
            workers: task.workers,
            w: fence.w,
            stripes,
        })
    }
}

async fn fence(target: &mut Session, task: &Task) -> Result<Fence> {
    match newest_fence(target, &task.name).await? {
        Some((row, fence)) if row.state == FenceState::Complete => Ok(fence),
        _ => bail!("the migration stands at no fence"),
    }
}

/// The statements to read.
#[derive(Debug, Deserialize, Serialize)]
pub struct Plan {
    source_port: u16,
    target_port: u16,
    workers: usize,
    w: u64,
    stripes: Vec<VecDeque<Pair>>,
}

/// The two reads of one chunk.
#[derive(Debug, Deserialize, Serialize)]
struct Pair {
    source: String,
    target: String,
}

/// Reads the statements of a file.
pub async fn run(path: &Path) -> Result<bool> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(path)?)?;
    let queue = Arc::new(Mutex::new(VecDeque::from(plan.stripes)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..plan.workers {
        let queue = Arc::clone(&queue);
        workers.spawn(async move {
            let mut source = connect(plan.source_port).await?;
            execute(&mut source, &format!("SET @@tidb_snapshot = '{}'", plan.w)).await?;
            let mut target = connect(plan.target_port).await?;
            execute(&mut target, "SET SESSION ob_query_timeout = 36000000000").await?;
            let mut rows = (0, 0);
            loop {
                let stripe = queue
                    .lock()
                    .expect("no holder of the queue panics")
                    .pop_front();
                let Some(stripe) = stripe else {
                    return anyhow::Ok(rows);
                };
                let read = read_stripe(&mut source, &mut target, stripe).await?;
                rows = (rows.0 + read.0, rows.1 + read.1);
            }
        });
    }
    let mut rows = (0, 0);
    while let Some(worker) = workers.join_next().await {
        let read = worker??;
        rows = (rows.0 + read.0, rows.1 + read.1);
    }
    println!("{} {}", rows.0, rows.1);
    Ok(rows.0 == rows.1)
}

/// Reads the chunks of a stripe. While the target's rows of one are read, the source's rows of the
/// next one are, as a check does.
async fn read_stripe(
    source: &mut MySqlConnection,
    target: &mut MySqlConnection,
    stripe: VecDeque<Pair>,
) -> Result<(u64, u64)> {
    let mut rows = (0, 0);
    let mut behind = None;
    for pair in stripe {
        let read_target = async {
            match behind.take() {
                Some(sql) => drain(&mut *target, sql).await,
                None => Ok(0),
            }
        };
        let (read, other) = tokio::join!(drain(&mut *source, pair.source), read_target);
        rows = (rows.0 + read?, rows.1 + other?);
        behind = Some(pair.target);
    }
    if let Some(sql) = behind {
        rows.1 += drain(target, sql).await?;
    }
    Ok(rows)
}

/// Reads the rows of a statement, drops each, and returns how many there were.
async fn drain(connection: &mut MySqlConnection, sql: String) -> Result<u64> {
    let mut stream = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(connection);
    let mut rows = 0;
    while let Some(row) = stream.try_next().await? {
        drop(row);
        rows += 1;
    }
    Ok(rows)
}
