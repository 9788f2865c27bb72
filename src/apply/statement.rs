//! The statements that write rows.

use super::literal;
use crate::row::Cells;
use crate::schema::{Column, Table, quote};
use std::fmt::Write;

/// The bytes after which a statement ends and the next begins: far below `max_allowed_packet`, and
/// long enough that the round trips do not count.
const STATEMENT_BYTES: usize = 512 << 10;

/// The rows or keys after which a statement ends: OceanBase plans an IN list of more much slower.
const STATEMENT_ITEMS: usize = 1_000;

/// Returns the columns that take values, in layout order, quoted and joined: generated columns
/// compute their own.
pub fn column_list(table: &Table) -> String {
    let names: Vec<String> = table
        .columns
        .iter()
        .filter(|column| column.is_written())
        .map(|column| quote(&column.name))
        .collect();
    names.join(", ")
}

/// Returns the statements that insert packed rows.
///
/// Every column that takes one is named and given a value, so that neither a default nor `ON UPDATE` ever fires
/// (INV-10).
pub fn insert_rows<'a>(table: &Table, rows: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let head = format!(
        "INSERT INTO {} ({}) VALUES ",
        table.target.sql(),
        column_list(table)
    );
    batched(&head, "", rows, |row, sql| {
        sql.push('(');
        push_cells(written(table, row), sql);
        sql.push(')');
    })
}

/// Returns the statements that delete the rows with these packed keys, where they exist.
pub fn delete_keys<'a>(table: &Table, keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let head = format!(
        "DELETE FROM {} WHERE {} IN (",
        table.target.sql(),
        key_tuple(table)
    );
    batched(&head, ")", keys, |key, sql| push_key(table, key, sql))
}

/// Returns the condition that finds the rows with these packed keys.
pub fn lookup_condition<'a>(table: &Table, keys: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sql = format!("{} IN (", key_tuple(table));
    for (place, key) in keys.into_iter().enumerate() {
        if place > 0 {
            sql.push_str(", ");
        }
        push_key(table, key, &mut sql);
    }
    sql.push(')');
    sql
}

/// Returns the condition that finds the one row with this packed key.
pub fn key_condition(table: &Table, key: &[u8]) -> String {
    let conditions: Vec<String> = table
        .key()
        .iter()
        .zip(Cells::of(key))
        .map(|(column, cell)| format!("{} = {}", quote(&column.name), literal(&column.kind, cell)))
        .collect();
    conditions.join(" AND ")
}

fn key_tuple(table: &Table) -> String {
    let names: Vec<String> = table
        .key()
        .iter()
        .map(|column| quote(&column.name))
        .collect();
    if names.len() == 1 {
        names.concat()
    } else {
        format!("({})", names.join(", "))
    }
}

fn push_key(table: &Table, key: &[u8], sql: &mut String) {
    if table.key_len > 1 {
        sql.push('(');
    }
    push_cells(table.key().iter().zip(Cells::of(key)), sql);
    if table.key_len > 1 {
        sql.push(')');
    }
}

/// Returns the columns of a packed row that take values, each with its cell.
pub fn written<'a>(
    table: &'a Table,
    row: &'a [u8],
) -> impl Iterator<Item = (&'a Column, Option<&'a [u8]>)> {
    let cells = table.columns.iter().zip(Cells::of(row));
    cells.filter(|(column, _)| column.is_written())
}

fn push_cells<'a>(cells: impl Iterator<Item = (&'a Column, Option<&'a [u8]>)>, sql: &mut String) {
    for (place, (column, cell)) in cells.enumerate() {
        if place > 0 {
            sql.push_str(", ");
        }
        write!(sql, "{}", literal(&column.kind, cell)).expect("writing to a string succeeds");
    }
}

/// Joins items into statements of bounded length.
fn batched<'a>(
    head: &str,
    tail: &str,
    items: impl IntoIterator<Item = &'a [u8]>,
    mut push: impl FnMut(&[u8], &mut String),
) -> Vec<String> {
    let mut statements = Vec::new();
    let mut sql = String::new();
    for (place, item) in items.into_iter().enumerate() {
        let full = sql.len() > STATEMENT_BYTES || place % STATEMENT_ITEMS == 0;
        if full && !sql.is_empty() {
            sql.push_str(tail);
            statements.push(std::mem::take(&mut sql));
        }
        sql.push_str(if sql.is_empty() { head } else { ", " });
        push(item, &mut sql);
    }
    if !sql.is_empty() {
        sql.push_str(tail);
        statements.push(sql);
    }
    statements
}
