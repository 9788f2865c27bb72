//! The table that is measured: ten mixed columns, the same rows in every run.

use crate::lab::{Lab, run, texts};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The definition; the comment is raised when the rows change, so that an older table is made anew.
const DEFINITION: &str = "CREATE TABLE bench.`rows` (
    id BIGINT NOT NULL PRIMARY KEY,
    customer INT UNSIGNED NOT NULL,
    amount DECIMAL(18,4) NOT NULL,
    weight DOUBLE NULL,
    status ENUM('new','paid','sent','back') NOT NULL,
    name VARCHAR(64) NOT NULL,
    note VARCHAR(255) NULL,
    token VARBINARY(16) NOT NULL,
    changed TIMESTAMP(3) NOT NULL,
    details JSON NOT NULL
) COMMENT 'rowproof side_by_side 1'";

/// The rows of one statement.
const STATEMENT_ROWS: u64 = 1_000;

/// How many connections write at once.
const WRITERS: usize = 4;

/// Makes the table on the source if it is not there with this many rows.
pub async fn fill(lab: &Lab, rows: u64) -> Result<()> {
    let mut source = lab.source().await?;
    if is_filled(&mut source, rows).await? {
        eprintln!("source: bench.rows is there with {rows} rows");
        return Ok(());
    }
    run(&mut source, "DROP DATABASE IF EXISTS bench").await?;
    run(&mut source, "CREATE DATABASE bench").await?;
    run(&mut source, DEFINITION).await?;
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (next, mut connection) = (Arc::clone(&next), lab.source().await?);
        writers.spawn(async move {
            loop {
                let from = next.fetch_add(STATEMENT_ROWS, Ordering::Relaxed);
                if from >= rows {
                    return anyhow::Ok(());
                }
                let to = (from + STATEMENT_ROWS).min(rows);
                run(&mut connection, &insert(from..to)).await?;
                if from % 100_000 == 0 {
                    eprintln!("source: {from} of {rows} rows written");
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    // A table in use is analyzed sooner or later; sync_diff_inspector cuts chunks by its statistics.
    run(&mut source, "ANALYZE TABLE bench.`rows`").await?;
    if !is_filled(&mut source, rows).await? {
        bail!("the source does not hold the {rows} rows that were written");
    }
    eprintln!(
        "source: {rows} rows written in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn is_filled(source: &mut sqlx::mysql::MySqlConnection, rows: u64) -> Result<bool> {
    let comment = "SELECT TABLE_COMMENT FROM information_schema.TABLES \
                   WHERE TABLE_SCHEMA = 'bench' AND TABLE_NAME = 'rows'";
    let comment = texts(source, comment).await?.pop().unwrap_or_default();
    if !DEFINITION.ends_with(&format!("'{comment}'")) {
        return Ok(false);
    }
    let count = texts(source, "SELECT CAST(COUNT(*) AS CHAR) FROM bench.`rows`").await?;
    Ok(count == [rows.to_string()])
}

/// Returns how many bytes of text the rows have, as the servers send them.
pub async fn text_bytes(lab: &Lab) -> Result<u64> {
    let columns = [
        "id", "customer", "amount", "weight", "status", "name", "note", "token", "changed",
        "details",
    ];
    let lengths = columns.map(|column| format!("IFNULL(LENGTH({column}), 0)"));
    let sql = format!(
        "SELECT CAST(SUM({}) AS CHAR) FROM bench.`rows`",
        lengths.join(" + ")
    );
    let found = texts(&mut lab.source().await?, &sql).await?.pop();
    found
        .and_then(|bytes| bytes.parse().ok())
        .context("the bytes of the rows")
}

/// Returns the statement that inserts these rows.
fn insert(rows: std::ops::Range<u64>) -> String {
    let mut sql = String::with_capacity(300 * STATEMENT_ROWS as usize);
    sql.push_str("INSERT INTO bench.`rows` VALUES ");
    for row in rows.clone() {
        sql.push_str(if row == rows.start { "(" } else { ", (" });
        push_row(row, &mut sql);
        sql.push(')');
    }
    sql
}

const FIRST_NAMES: [&str; 8] = [
    "Anna",
    "Jörg",
    "Li Wei",
    "Zoë",
    "O-Lan",
    "Мария",
    "Chidi",
    "Ximena",
];
const LAST_NAMES: [&str; 8] = [
    "Karlsson", "Müller", "Okonkwo", "da Silva", "王", "Ivanova", "Smith", "Nguyễn",
];
const WORDS: [&str; 8] = [
    "leave", "at the", "door", "behind", "blue", "gate,", "ring", "twice;",
];
const STATES: [&str; 4] = ["new", "paid", "sent", "back"];

fn push_row(row: u64, sql: &mut String) {
    let mut random = Random(row);
    let id = row * 7 + random.below(7);
    write!(sql, "{id}, {}, ", random.below(2_000_000)).expect("a string can be written");
    write!(
        sql,
        "{}.{:04}, ",
        random.below(100_000),
        random.below(10_000)
    )
    .expect("as above");
    match random.below(16) {
        0 => sql.push_str("NULL, "),
        _ => write!(
            sql,
            "{}.{:03}e0, ",
            1 + random.below(900),
            random.below(1_000)
        )
        .expect("above"),
    }
    write!(sql, "'{}', ", pick(&STATES, &mut random)).expect("as above");
    let (first, last) = (
        pick(&FIRST_NAMES, &mut random),
        pick(&LAST_NAMES, &mut random),
    );
    write!(sql, "'{first} {last} {}', ", random.below(10_000)).expect("as above");
    match random.below(8) {
        0 => sql.push_str("NULL, "),
        _ => push_note(&mut random, sql),
    }
    write!(sql, "x'{:016x}{:016x}', ", random.next(), random.next()).expect("as above");
    let (day, second) = (1 + random.below(28), random.below(60));
    write!(sql, "'2025-{:02}-{day:02} ", 1 + random.below(12)).expect("as above");
    write!(sql, "{:02}:{:02}:", random.below(24), random.below(60)).expect("as above");
    write!(sql, "{second:02}.{:03}', ", random.below(1_000)).expect("as above");
    // Both servers print keys of one length in the same order, so that peers compare equal texts.
    write!(sql, "'{{\"left\": {}, ", random.below(1_000)).expect("as above");
    write!(sql, "\"tags\": [\"{}\", ", pick(&STATES, &mut random)).expect("as above");
    write!(sql, "{}.5]}}'", random.below(100)).expect("as above");
}

fn push_note(random: &mut Random, sql: &mut String) {
    sql.push('\'');
    for _ in 0..6 + random.below(12) {
        sql.push_str(pick(&WORDS, random));
        sql.push(' ');
    }
    sql.push_str("end', ");
}

fn pick<'a>(choices: &[&'a str], random: &mut Random) -> &'a str {
    choices[random.below(choices.len() as u64) as usize]
}

/// Numbers that look random and are the same in every run (the finalizer of SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
