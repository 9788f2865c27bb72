//! What tables have beside columns and indexes, as `information_schema` lists it.

use super::catalog::{next_name, next_text};
use super::{Server, Session};
use crate::error::Result;
use crate::schema::{Check, Features, ForeignKey, Partition, Partitioning, TableName, quote};
use std::collections::{BTreeMap, BTreeSet};

/// The features of each table that has any.
type ByTable = BTreeMap<TableName, Features>;

/// Reads the features of all tables of some schemas, which are given as a list of literals.
pub async fn features(session: &mut Session, schemas: &str) -> Result<ByTable> {
    let mut found = ByTable::new();
    checks(session, schemas, &mut found).await?;
    foreign_keys(session, schemas, &mut found).await?;
    partitions(session, schemas, &mut found).await?;
    Ok(found)
}

async fn checks(session: &mut Session, schemas: &str, found: &mut ByTable) -> Result<()> {
    let sql = match session.server() {
        Server::TiDb => format!(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE, 'YES' \
             FROM information_schema.TIDB_CHECK_CONSTRAINTS \
             WHERE CONSTRAINT_SCHEMA IN ({schemas})"
        ),
        Server::OceanBase => format!(
            "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.CONSTRAINT_NAME, c.CHECK_CLAUSE, t.ENFORCED \
             FROM information_schema.TABLE_CONSTRAINTS t \
             JOIN information_schema.CHECK_CONSTRAINTS c \
             ON c.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA \
             AND c.CONSTRAINT_NAME = t.CONSTRAINT_NAME \
             WHERE t.CONSTRAINT_TYPE = 'CHECK' AND t.TABLE_SCHEMA IN ({schemas})"
        ),
    };
    let mut tables = BTreeSet::new();
    for row in session.texts(sql).await? {
        let mut cells = row.into_iter();
        let name = next_name(&mut cells);
        tables.insert(name.clone());
        found.entry(name).or_default().checks.push(Check {
            name: next_text(&mut cells),
            condition: next_text(&mut cells),
            enforced: next_text(&mut cells) != "NO",
        });
    }
    if session.server() == Server::TiDb {
        for name in tables {
            let features = found.entry(name.clone()).or_default();
            mark_not_enforced(session, &name, &mut features.checks).await?;
        }
    }
    Ok(())
}

/// TiDB lists nowhere but in SHOW CREATE TABLE which CHECK constraints hold nobody to anything.
async fn mark_not_enforced(
    session: &mut Session,
    name: &TableName,
    checks: &mut [Check],
) -> Result<()> {
    let create = show_create(session, name).await?;
    for check in checks {
        let mark = format!(
            "CONSTRAINT {} CHECK ({}) /*!80016 NOT ENFORCED */",
            quote(&check.name),
            check.condition
        );
        check.enforced = !create.contains(&mark);
    }
    Ok(())
}

/// Returns the statement that made a table, as the server prints it.
pub async fn show_create(session: &mut Session, name: &TableName) -> Result<String> {
    let rows = session
        .texts(format!("SHOW CREATE TABLE {}", name.sql()))
        .await?;
    let create = rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().nth(1));
    Ok(create.flatten().unwrap_or_default())
}

async fn foreign_keys(session: &mut Session, schemas: &str, found: &mut ByTable) -> Result<()> {
    let sql = format!(
        "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, \
         k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, \
         r.UPDATE_RULE, r.DELETE_RULE \
         FROM information_schema.KEY_COLUMN_USAGE k \
         JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
         ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.TABLE_NAME = k.TABLE_NAME \
         AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME \
         WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND k.TABLE_SCHEMA IN ({schemas}) \
         ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    );
    for row in session.texts(sql).await? {
        let mut cells = row.into_iter();
        let table = next_name(&mut cells);
        let (name, column) = (next_text(&mut cells), next_text(&mut cells));
        let parent = next_name(&mut cells);
        let parent_column = next_text(&mut cells);
        let keys = &mut found.entry(table).or_default().foreign_keys;
        if keys.last().is_none_or(|key| key.name != name) {
            keys.push(ForeignKey {
                name,
                columns: Vec::new(),
                parent,
                parent_columns: Vec::new(),
                on_update: next_text(&mut cells),
                on_delete: next_text(&mut cells),
            });
        }
        if let Some(key) = keys.last_mut() {
            key.columns.push(column);
            key.parent_columns.push(parent_column);
        }
    }
    Ok(())
}

async fn partitions(session: &mut Session, schemas: &str, found: &mut ByTable) -> Result<()> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, PARTITION_METHOD, PARTITION_EXPRESSION, \
         PARTITION_NAME, PARTITION_DESCRIPTION, PARTITION_COMMENT \
         FROM information_schema.PARTITIONS \
         WHERE PARTITION_NAME IS NOT NULL AND TABLE_SCHEMA IN ({schemas}) \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, PARTITION_ORDINAL_POSITION"
    );
    for row in session.texts(sql).await? {
        let mut cells = row.into_iter();
        let table = next_name(&mut cells);
        let (method, expression) = (next_text(&mut cells), next_text(&mut cells));
        let features = found.entry(table).or_default();
        let partitioning = features.partitioning.get_or_insert_with(|| Partitioning {
            method,
            expression,
            partitions: Vec::new(),
        });
        partitioning.partitions.push(Partition {
            name: next_text(&mut cells),
            values: next_text(&mut cells),
            comment: next_text(&mut cells),
        });
    }
    Ok(())
}

/// Reads which indexes span all partitions. TiDB says so since 7.6; before, there were none.
pub async fn global_indexes(
    session: &mut Session,
    schemas: &str,
) -> Result<BTreeSet<(TableName, String)>> {
    if session.server() != Server::TiDb {
        return Ok(BTreeSet::new());
    }
    let known = "SELECT 1 FROM information_schema.COLUMNS WHERE TABLE_NAME = 'TIDB_INDEXES' \
                 AND COLUMN_NAME = 'IS_GLOBAL'";
    if session.text(known).await?.is_none() {
        return Ok(BTreeSet::new());
    }
    let sql = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME, KEY_NAME FROM information_schema.TIDB_INDEXES \
         WHERE IS_GLOBAL = 1 AND TABLE_SCHEMA IN ({schemas})"
    );
    let rows = session.texts(sql).await?;
    let index = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter();
        (next_name(&mut cells), next_text(&mut cells))
    };
    Ok(rows.into_iter().map(index).collect())
}
