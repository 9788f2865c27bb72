//! Making the tables on the target.

use crate::database::{Catalog, Record, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::CommitTs;
use crate::schema::{Table, TableName, compare, create_database, create_table};

/// Makes a table on the target, once, and records it. After a crash in between it is found empty,
/// and recorded then.
///
/// # Errors
/// If the target has another table of that name, or refuses to make it.
pub async fn make_table(
    target: &mut Session,
    record: &Record,
    existing: &Catalog,
    known: bool,
    table: &Table,
    base: CommitTs,
) -> Result<()> {
    let found = existing.find(&table.target);
    if let (Some(found), false) = (found, known) {
        assert_empty(target, &table.target).await?;
        assert_same(table, found)?;
    }
    if found.is_none() {
        // A user with grants on one database only may not run this even where it changes nothing.
        let schemas = target
            .text(format!(
                "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
                crate::apply::text_literal(table.target.schema.as_bytes())
            ))
            .await?;
        if schemas.is_none() {
            target
                .execute(create_database(&table.target.schema))
                .await
                .map_err(|error| {
                    error.at(format!("making database {} on the target", table.target.schema)).advise(
                    "make it as an administrator, or GRANT CREATE ON *.* to rowproof's user",
                )
                })?;
        }
        target
            .execute(create_table(table))
            .await
            .map_err(|error| error.at(format!("making table {} on the target", table.target)))?;
    }
    record.add_followed(target, table, base).await
}

async fn assert_empty(target: &mut Session, name: &TableName) -> Result<()> {
    let row = target
        .text(format!("SELECT 1 FROM {} LIMIT 1", name.sql()))
        .await?;
    if row.is_none() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("the target's table {name} holds rows that rowproof did not write"),
    )
    .advise("empty or drop it, or exclude it under [tables]; rowproof overwrites nothing"))
}

fn assert_same(source: &Table, target: &Table) -> Result<()> {
    let differences = compare(source, target);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "the target's table {} is another one: {}",
            source.target,
            differences.join("; ")
        ),
    )
    .advise("drop it, and rowproof makes it anew"))
}
