//! Views and sequences, as `information_schema` lists them.

use super::Session;
use super::catalog::{next_name, next_text};
use crate::error::Result;
use crate::schema::{RawColumn, TableName, View};
use std::collections::BTreeMap;

/// Reads the views of some schemas, which are given as a list of literals, with the columns that
/// are known of each.
pub async fn views(
    session: &mut Session,
    schemas: &str,
    columns: &BTreeMap<TableName, Vec<RawColumn>>,
) -> Result<Vec<View>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS \
         WHERE TABLE_SCHEMA IN ({schemas}) ORDER BY TABLE_SCHEMA, TABLE_NAME"
    );
    let rows = session.texts(sql).await?;
    let view = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter();
        let name = next_name(&mut cells);
        let mut of_view: Vec<&RawColumn> = columns.get(&name).into_iter().flatten().collect();
        of_view.sort_by_key(|column| column.ordinal);
        View {
            columns: of_view.iter().map(|column| column.name.clone()).collect(),
            query: next_text(&mut cells),
            name,
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Returns the statement that makes a sequence of the source on an OceanBase that knows sequences,
/// to go on above every value that the source may have handed out.
pub async fn sequence_sql(session: &mut Session, name: &TableName) -> Result<String> {
    let literal = |text: &str| crate::apply::text_literal(text.as_bytes());
    let sql = format!(
        "SELECT INCREMENT, MIN_VALUE, MAX_VALUE, CACHE_VALUE, CYCLE \
         FROM information_schema.SEQUENCES WHERE SEQUENCE_SCHEMA = {} AND SEQUENCE_NAME = {}",
        literal(&name.schema),
        literal(&name.table)
    );
    let row = session.texts(sql).await?.into_iter().next();
    let mut cells = row.unwrap_or_default().into_iter();
    let mut next = || next_text(&mut cells);
    let (increment, least, most, cache, cycle) = (next(), next(), next(), next(), next());
    let rows = session
        .texts(format!("SHOW TABLE {} NEXT_ROW_ID", name.sql()))
        .await?;
    let is_sequence = |row: &&Vec<Option<String>>| row.last() == Some(&Some("SEQUENCE".to_owned()));
    let start = rows
        .iter()
        .find(is_sequence)
        .and_then(|row| row.get(3)?.clone())
        .unwrap_or_default();
    let cache = match cache.as_str() {
        "" | "0" | "1" => "NOCACHE".to_owned(),
        many => format!("CACHE {many}"),
    };
    let cycle = if cycle == "1" { "CYCLE" } else { "NOCYCLE" };
    Ok(format!(
        "CREATE SEQUENCE {} START WITH {start} INCREMENT BY {increment} MINVALUE {least} \
         MAXVALUE {most} {cache} {cycle}",
        name.sql()
    ))
}
