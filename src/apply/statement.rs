//! The statements that write rows.

use super::literal::{literal, push_literal};
use super::lookup::lookup_condition;
use crate::row::{Cells, Kind};
use crate::schema::{Column, Table, quote};

/// The bytes after which a statement ends and the next begins: far below `max_allowed_packet`, and
/// long enough that the round trips do not count.
const STATEMENT_BYTES: usize = 512 << 10;

/// The bytes of packed keys that one statement names. Their text may be twice as long, in hexadecimal digits.
const KEYS_BYTES: usize = STATEMENT_BYTES / 2;

/// The rows or keys after which a statement ends: OceanBase plans an IN list of more much slower.
const STATEMENT_ITEMS: usize = 1_000;

/// The share by which a statement may be longer than the one before without growing.
const CAPACITY_SPARE: usize = 16;

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
pub fn insert_rows<'a>(
    table: &'a Table,
    rows: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = String> {
    let head = format!(
        "INSERT INTO {} ({}) VALUES ",
        table.target.sql(),
        column_list(table)
    );
    batched(head, rows, |row, sql| {
        sql.push('(');
        push_cells(written(table, row), sql);
        sql.push(')');
    })
}

/// Returns the statements that delete the rows with these packed keys, where they exist, and no others.
pub fn delete_keys<'a>(
    table: &'a Table,
    keys: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = String> {
    let head = format!("DELETE FROM {} WHERE ", table.target.sql());
    portions(keys).map(move |keys| head.clone() + &lookup_condition(table, keys))
}

/// Returns the condition that finds the one row with this packed key.
pub fn key_condition(table: &Table, key: &[u8]) -> String {
    let conditions: Vec<String> = table
        .key()
        .iter()
        .zip(Cells::of(key))
        .map(|(column, cell)| {
            let mut sql = format!("{} = ", compared(column));
            push_number_or_literal(column, cell, &mut sql);
            sql
        })
        .collect();
    conditions.join(" AND ")
}

/// Returns a condition that finds these packed rows of a table without a key, on both servers, and
/// perhaps others: what it finds must be compared in canonical form.
pub fn rows_condition<'a>(table: &Table, rows: impl IntoIterator<Item = &'a [u8]>) -> String {
    let rows = rows.into_iter().map(|row| {
        let cells = table.columns.iter().zip(Cells::of(row));
        let conditions: Vec<String> = cells
            .filter_map(|(column, cell)| wide_condition(column, cell))
            .collect();
        match conditions.as_slice() {
            [] => "TRUE".to_owned(),
            conditions => conditions.join(" AND "),
        }
    });
    let rows: Vec<String> = rows.map(|row| format!("({row})")).collect();
    rows.join(" OR ")
}

/// The bytes of the longest text that stands in a condition; a longer one is known by its length.
const CONDITION_BYTES: usize = 1_024;

/// Returns a condition that holds at least for this value of a column; none where the two servers
/// may compare it differently.
fn wide_condition(column: &Column, cell: Option<&[u8]>) -> Option<String> {
    let name = quote(&column.name);
    let Some(bytes) = cell else {
        return Some(format!("{name} IS NULL"));
    };
    let is_utf8 = column
        .charset
        .as_deref()
        .is_none_or(|charset| matches!(charset, "utf8mb4" | "utf8" | "utf8mb3" | "ascii"));
    match column.kind {
        Kind::Enum(_) | Kind::Set(_) | Kind::Json | Kind::Vector => None,
        Kind::Char | Kind::Text if !is_utf8 => None,
        Kind::Text | Kind::Bytes if bytes.len() > CONDITION_BYTES => {
            Some(format!("LENGTH({name}) = {}", bytes.len()))
        }
        _ => Some(format!(
            "{} = {}",
            compared(column),
            literal(&column.kind, cell)
        )),
    }
}

/// Returns the expression of a column by which its values are found. OceanBase compares a FLOAT with
/// six digits; widened, it is compared whole. In a key it refuses to compare an ENUM with a label
/// (error 1210), but not its number.
fn compared(column: &Column) -> String {
    match column.kind {
        Kind::Float => format!("{} * 1e0", quote(&column.name)),
        Kind::Enum(_) | Kind::Set(_) => format!("{} + 0", quote(&column.name)),
        _ => quote(&column.name),
    }
}

/// Appends the number of an ENUM or a SET, and else the literal.
fn push_number_or_literal(column: &Column, cell: Option<&[u8]>, sql: &mut String) {
    match cell.and_then(|cell| label_number(&column.kind, cell)) {
        Some(number) => sql.push_str(&number.to_string()),
        None => push_literal(&column.kind, cell, sql),
    }
}

/// Returns the number behind the label of an ENUM or the labels of a SET; none of another kind.
pub fn label_number(kind: &Kind, cell: &[u8]) -> Option<u64> {
    match kind {
        Kind::Enum(_) | Kind::Set(_) if kind.is_numbered() => {
            std::str::from_utf8(cell).ok()?.parse().ok()
        }
        Kind::Enum(labels) => place_of(labels, cell),
        Kind::Set(labels) => {
            let mut given = cell.split(|byte| *byte == b',');
            given.try_fold(0_u64, |bits, label| match place_of(labels, label)? {
                0 => Some(bits),
                place => Some(bits | 1_u64.checked_shl(u32::try_from(place).ok()? - 1)?),
            })
        }
        _ => None,
    }
}

/// Returns the place of a label, counted from 1; 0 is the error value.
fn place_of(labels: &[String], label: &[u8]) -> Option<u64> {
    if label.is_empty() {
        return Some(0);
    }
    let place = labels.iter().position(|known| known.as_bytes() == label)?;
    Some(place as u64 + 1)
}

pub(super) fn key_tuple(table: &Table) -> String {
    let names: Vec<String> = table.key().iter().map(compared).collect();
    if names.len() == 1 {
        names.concat()
    } else {
        format!("({})", names.join(", "))
    }
}

pub(super) fn push_key(table: &Table, key: &[u8], sql: &mut String) {
    if table.key_len > 1 {
        sql.push('(');
    }
    for (place, (column, cell)) in table.key().iter().zip(Cells::of(key)).enumerate() {
        if place > 0 {
            sql.push_str(", ");
        }
        push_number_or_literal(column, cell, sql);
    }
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
        push_literal(&column.kind, cell, sql);
    }
}

/// Joins items into statements of bounded length, each made when it is asked for.
fn batched<'a>(
    head: String,
    items: impl IntoIterator<Item = &'a [u8]>,
    push: impl Fn(&[u8], &mut String),
) -> impl Iterator<Item = String> {
    let mut items = items.into_iter().peekable();
    // A statement is about as long as the one before.
    let mut capacity = 0;
    std::iter::from_fn(move || {
        items.peek()?;
        let mut sql = String::with_capacity(capacity);
        sql.push_str(&head);
        for place in 0..STATEMENT_ITEMS {
            // One item may be larger than all the others together: it stands alone.
            let large = items
                .peek()
                .is_some_and(|item| item.len() > STATEMENT_BYTES);
            if place > 0 && (large || sql.len() > STATEMENT_BYTES) {
                break;
            }
            let Some(item) = items.next() else { break };
            if place > 0 {
                sql.push_str(", ");
            }
            push(item, &mut sql);
        }
        capacity = sql.len() + sql.len() / CAPACITY_SPARE;
        Some(sql)
    })
}

/// Divides keys into what one statement names of them, each portion when it is asked for.
fn portions<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = Vec<&'a [u8]>> {
    let mut keys = keys.into_iter();
    std::iter::from_fn(move || {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while portion.len() < STATEMENT_ITEMS && bytes <= KEYS_BYTES {
            let Some(key) = keys.next() else { break };
            bytes += key.len();
            portion.push(key);
        }
        (!portion.is_empty()).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Rows;
    use crate::schema::testing::integer_table;

    fn deletes(keys: impl Iterator<Item = u32>) -> Vec<String> {
        let mut packed = Rows::new();
        keys.for_each(|key| packed.push_row([Some(key.to_string().as_bytes())]));
        delete_keys(&integer_table("s", "t"), packed.iter()).collect()
    }

    #[test]
    fn deletes_name_their_keys_and_no_others() {
        let head = "DELETE FROM `s`.`t` WHERE";
        assert_eq!(
            deletes((1..40).chain(41..80)),
            [format!(
                "{head} (`id` BETWEEN 1 AND 39 OR `id` BETWEEN 41 AND 79)"
            )]
        );
        assert_eq!(
            deletes([7, 9].into_iter()),
            [format!("{head} `id` IN (7, 9)")]
        );
        assert_eq!(deletes(std::iter::empty()), Vec::<String>::new());
        assert_eq!(
            deletes(0..1_001),
            [
                format!("{head} (`id` BETWEEN 0 AND 999)"),
                format!("{head} `id` IN (1000)")
            ]
        );
    }

    #[test]
    fn many_keys_are_divided_by_number_and_long_ones_by_length() {
        let lengths = |key: &[u8], count| -> Vec<usize> {
            portions(std::iter::repeat_n(key, count))
                .map(|portion| portion.len())
                .collect()
        };
        assert_eq!(lengths(&[0; 8], 2_500), [1_000, 1_000, 500]);
        assert_eq!(lengths(&[0; 3 << 10], 200), [86, 86, 28]);
    }
}
