//! The same writes and reads with nothing else done: what the servers themselves take.

use crate::lab::{Lab, connect, run};
use crate::table;
use anyhow::Result;
use futures_util::TryStreamExt;
use rowproof::apply::{delete_keys, insert_rows};
use rowproof::database::{Server, Session, source_scan, target_scan};
use rowproof::row::{Cells, Rows};
use rowproof::schema::{Table, TableName};
use rowproof::task::Task;
use sqlx::AssertSqlSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many keys one query looks up, as many as a proof does.
const KEYS_PER_QUERY: usize = 500;

/// The statements between two commits.
const STATEMENTS_PER_TRANSACTION: usize = 10;

/// What a backlog did, folded.
pub struct Folded {
    pub table: Table,
    /// The rows that are there afterwards.
    pub rows: Rows,
    /// The keys that were there before and changed or went.
    pub gone: Vec<u64>,
    /// The keys that were touched.
    pub keys: Vec<u64>,
}

/// Writes the folded changes into a copy of the table as it was, on so many connections. Returns the time and
/// the processor time of OceanBase, both in seconds.
pub async fn writes(
    lab: &Lab,
    folded: &Folded,
    before: u64,
    connections: usize,
) -> Result<(f64, f64)> {
    let database = format!("{}_bare", lab.name);
    let mut bare = folded.table.clone();
    bare.target = TableName::new(&database, "t");
    let keys = packed(&folded.gone);
    let deletes: Vec<String> = delete_keys(&bare, keys.iter()).collect();
    let inserts: Vec<String> = insert_rows(&bare, folded.rows.iter()).collect();
    let mut target = lab.target().await?;
    table::create(&mut target, &database).await?;
    for from in (0..before).step_by(table::STATEMENT_ROWS as usize) {
        let to = (from + table::STATEMENT_ROWS).min(before);
        run(&mut target, &table::Change::Insert.sql(&database, from, to)).await?;
    }
    lab.settle().await?;
    let (began, cpu) = (Instant::now(), lab.target_cpu_seconds()?);
    for statements in [deletes, inserts] {
        write(lab.target_port()?, connections, Arc::new(statements)).await?;
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = lab.target_cpu_seconds()? - cpu;
    run(&mut target, &format!("DROP DATABASE {database}")).await?;
    Ok((took, cpu))
}

async fn write(port: u16, connections: usize, statements: Arc<Vec<String>>) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (next, statements) = (Arc::clone(&next), Arc::clone(&statements));
        writers.spawn(async move {
            let mut target = connect(port).await?;
            run(&mut target, "SET foreign_key_checks = 0").await?;
            loop {
                let from = next.fetch_add(STATEMENTS_PER_TRANSACTION, Ordering::Relaxed);
                let Some(own) = statements.get(from..) else {
                    return anyhow::Ok(());
                };
                run(&mut target, "BEGIN").await?;
                for sql in own.iter().take(STATEMENTS_PER_TRANSACTION) {
                    run(&mut target, sql).await?;
                }
                run(&mut target, "COMMIT").await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// Reads all touched keys on both sides at once, as lists, on so many connections a side. Returns the time in
/// seconds.
pub async fn reads(task: &Task, folded: &Folded, connections: usize) -> Result<f64> {
    let mut pairs = Vec::new();
    for some in folded.keys.chunks(KEYS_PER_QUERY) {
        let keys: Vec<String> = some.iter().map(u64::to_string).collect();
        let condition = format!("id IN ({})", keys.join(", "));
        pairs.push((
            source_scan(&folded.table, Some(&condition)).sql,
            target_scan(&folded.table, Some(&condition), None).sql,
        ));
    }
    let pairs = Arc::new(pairs);
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (next, pairs) = (Arc::clone(&next), Arc::clone(&pairs));
        let (source, target) = (task.source.port, task.target.port);
        readers.spawn(async move {
            let (mut source, mut target) = (connect(source).await?, connect(target).await?);
            while let Some((left, right)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (left, right) =
                    tokio::join!(drain(&mut source, left), drain(&mut target, right));
                anyhow::ensure!(left? == right?, "both sides have the same rows");
            }
            anyhow::Ok(())
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn drain(connection: &mut sqlx::mysql::MySqlConnection, sql: &str) -> Result<u64> {
    let mut stream = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(connection);
    let mut rows = 0;
    while let Some(row) = stream.try_next().await? {
        drop(row);
        rows += 1;
    }
    Ok(rows)
}

fn packed(keys: &[u64]) -> Rows {
    let mut rows = Rows::new();
    for key in keys {
        rows.push_row([Some(key.to_string().as_bytes())]);
    }
    rows
}

/// Reads what the source holds now of keys behind the first ones.
pub async fn images(
    task: &Task,
    table: Table,
    gone: Vec<u64>,
    keys: Vec<u64>,
    from: u64,
) -> Result<Folded> {
    let mut source = Session::connect(&task.source, Server::TiDb).await?;
    let mut rows = Rows::new();
    source
        .scan(
            source_scan(&table, Some(&format!("id >= {from}"))),
            &mut rows,
        )
        .await?;
    let last = rows.packed(rows.len() - 1);
    anyhow::ensure!(
        Cells::of(last).next().flatten().is_some(),
        "the key comes first"
    );
    Ok(Folded {
        table,
        rows,
        gone,
        keys,
    })
}
