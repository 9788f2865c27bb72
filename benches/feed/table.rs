//! The table whose changes are measured.

use crate::lab::{Lab, run};
use anyhow::Result;
use sqlx::mysql::MySqlConnection;

/// The rows that one statement inserts, updates or deletes.
pub const STATEMENT_ROWS: u64 = 1_000;

/// The columns, but for the key.
const COLUMNS: &str = "account BIGINT NOT NULL, name VARCHAR(60) NOT NULL, note VARCHAR(120), \
     amount DECIMAL(12,2) NOT NULL, ratio DOUBLE, at DATETIME(3) NOT NULL, flag TINYINT, \
     kind ENUM('new','open','done') NOT NULL, KEY by_account (account)";

/// Makes the table in a database of its own.
pub async fn create(server: &mut MySqlConnection, database: &str) -> Result<()> {
    run(server, &format!("DROP DATABASE IF EXISTS {database}")).await?;
    run(server, &format!("CREATE DATABASE {database}")).await?;
    let sql = format!("CREATE TABLE {database}.t (id BIGINT PRIMARY KEY, {COLUMNS})");
    run(server, &sql).await
}

/// Returns the row of a key.
fn row(id: u64) -> String {
    format!(
        "({id}, {}, 'name of {id}', 'a note of some length that belongs to row {id}', {}.{:02}, \
         {}.5, '2026-01-{:02} 10:{:02}:{:02}.{:03}', {}, {})",
        id % 9_973,
        id % 100_000,
        id % 100,
        id % 1_000,
        id % 28 + 1,
        id % 60,
        id % 59,
        id % 1_000,
        id % 3,
        id % 3 + 1
    )
}

/// A statement on consecutive keys.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// They are inserted.
    Insert,
    /// They get other values.
    Update,
    /// They are deleted.
    Delete,
}

impl Change {
    /// Returns the statement on the keys from one to another, which is not among them.
    pub fn sql(self, database: &str, from: u64, to: u64) -> String {
        let keys = format!("id >= {from} AND id < {to}");
        match self {
            Change::Insert => {
                let rows: Vec<String> = (from..to).map(row).collect();
                format!("INSERT INTO {database}.t VALUES {}", rows.join(", "))
            }
            Change::Update => format!(
                "UPDATE {database}.t SET amount = amount + 1, note = CONCAT('changed ', id) WHERE {keys}"
            ),
            Change::Delete => format!("DELETE FROM {database}.t WHERE {keys}"),
        }
    }
}

/// Changes all keys from one to another, statement by statement, on several connections.
pub async fn change(lab: &Lab, changes: &[(Change, u64, u64)]) -> Result<()> {
    let mut statements = Vec::new();
    for (change, from, to) in changes {
        for from in (*from..*to).step_by(STATEMENT_ROWS as usize) {
            let to = (from + STATEMENT_ROWS).min(*to);
            statements.push((*change, from, to));
        }
    }
    let connections = 4;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..connections {
        let own: Vec<_> = statements
            .iter()
            .skip(writer)
            .step_by(connections)
            .copied()
            .collect();
        let (mut source, name) = (lab.source().await?, lab.name);
        writers.spawn(async move {
            for (change, from, to) in own {
                run(&mut source, &change.sql(name, from, to)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}
