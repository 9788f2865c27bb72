//! The comparison by plain SQL that shares no code with rowproof: both databases are asked for all
//! rows as text, and the texts are compared here.

use crate::lab::{Lab, texts};
use sqlx::mysql::MySqlConnection;
use std::collections::BTreeMap;

/// The rows of a table by the text of all their columns, each with how often it is there.
type Multiset = BTreeMap<Vec<Option<String>>, u32>;

/// Asserts that every table of the test's database holds the same rows on both sides now.
pub async fn assert_same_rows(lab: &Lab) {
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let tables = texts(
        &mut source,
        &format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}'",
            lab.database
        ),
    )
    .await;
    assert!(!tables.is_empty(), "the source has tables");
    for table in tables.into_iter().flatten().flatten() {
        let columns = column_expressions(&mut source, &lab.database, &table).await;
        let sql = format!("SELECT {columns} FROM `{}`.`{table}`", lab.database);
        let left = multiset(texts(&mut source, &sql).await);
        let right = multiset(texts(&mut target, &sql).await);
        let missing: Vec<_> = left.iter().filter(|(row, count)| right.get(*row) != Some(count)).collect();
        let extra: Vec<_> = right.iter().filter(|(row, count)| left.get(*row) != Some(count)).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{table}: only on the source {missing:?}, only on the target {extra:?}"
        );
    }
}

async fn column_expressions(source: &mut MySqlConnection, database: &str, table: &str) -> String {
    let columns = texts(
        source,
        &format!(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{table}' ORDER BY ORDINAL_POSITION"
        ),
    )
    .await;
    let expressions = columns.iter().map(|column| {
        let (name, kind) = (column[0].as_deref().unwrap_or(""), column[1].as_deref().unwrap_or(""));
        match kind {
            "float" => format!("`{name}` * 1e0"),
            // HEX of a decimal would be that of its integer part, and not beyond 64 bits.
            "double" | "decimal" => format!("`{name}`"),
            "bit" => format!("`{name}` + 0"),
            "json" => format!("CONCAT('json:', `{name}`)"),
            _ => format!("HEX(`{name}`)"),
        }
    });
    expressions.collect::<Vec<_>>().join(", ")
}

fn multiset(rows: Vec<Vec<Option<String>>>) -> Multiset {
    let mut set = Multiset::new();
    for row in rows {
        let row = row.into_iter().map(|cell| cell.map(normal)).collect();
        *set.entry(row).or_default() += 1;
    }
    set
}

/// The two servers sort the members of JSON objects differently.
fn normal(cell: String) -> String {
    match cell.strip_prefix("json:") {
        Some(text) => {
            let value: serde_json::Value = serde_json::from_str(text).expect("JSON from a server");
            value.to_string()
        }
        None => cell,
    }
}
