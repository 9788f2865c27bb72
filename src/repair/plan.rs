//! One difference into the statements that mend it.

use super::guard::row_condition;
use crate::apply::{column_list, key_condition, literal, written};
use crate::error::{Error, ErrorKind, Result};
use crate::proof::{Difference, DifferenceKind, copy_number};
use crate::row::{Cells, Kind};
use crate::schema::{Column, Table, quote};
use serde::Serialize;

/// A pass over all differences of a table.
///
/// All deletes come before all updates, and those before all inserts, so that rows can trade the
/// values of a unique key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Takes away what the source does not have, and what an insert will bring back changed.
    Delete,
    /// Changes columns in place.
    Update,
    /// Brings what the target does not have.
    Insert,
}

impl Step {
    /// The passes in the order in which they must run.
    pub const ALL: [Step; 3] = [Step::Delete, Step::Update, Step::Insert];

    /// Returns the step's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Delete => "delete",
            Step::Update => "update",
            Step::Insert => "insert",
        }
    }
}

/// Returns the statement by which a difference takes part in a step, if it does.
///
/// A changed row whose differing columns belong to a unique index is deleted and inserted, because
/// an update could collide with a row that is mended after it. Run alone, each statement matches
/// one row, or none if the target changed since.
///
/// # Errors
/// If the difference lacks a row that its kind says it has, or a missing copy of a row without a key
/// holds JSON.
pub fn statement(table: &Table, difference: &Difference, step: Step) -> Result<Option<String>> {
    if table.key_len == 0 {
        return copy_statement(table, difference, step);
    }
    let rebuilt = difference.kind == DifferenceKind::Changed && is_unique(table, difference);
    let sql = match (step, difference.kind) {
        (Step::Delete, DifferenceKind::Extra) => delete(table, target_of(table, difference)?),
        (Step::Delete, DifferenceKind::Changed) if rebuilt => {
            delete(table, target_of(table, difference)?)
        }
        // A generated column follows the others; where it alone differs, no statement mends it.
        (Step::Update, DifferenceKind::Changed) if !rebuilt && is_settable(table, difference) => {
            update(
                table,
                source_of(table, difference)?,
                target_of(table, difference)?,
                &difference.columns,
            )
        }
        (Step::Insert, DifferenceKind::Missing) => insert(table, source_of(table, difference)?),
        (Step::Insert, DifferenceKind::Changed) if rebuilt => {
            insert(table, source_of(table, difference)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(sql))
}

/// Returns the statement for one copy of a row without a key. It names the number of the copy, so
/// that it does nothing where there are as many copies as there should be.
fn copy_statement(table: &Table, difference: &Difference, step: Step) -> Result<Option<String>> {
    let copy = copy_number(&difference.key).unwrap_or(1);
    let count = |row: &[u8]| {
        let (name, condition) = (table.target.sql(), row_condition(table, row));
        format!("SELECT COUNT(*) AS n FROM {name} WHERE {condition}")
    };
    Ok(match (step, difference.kind) {
        (Step::Delete, DifferenceKind::Extra) => {
            let row = target_of(table, difference)?;
            // OceanBase takes the table of a DELETE in a derived table only.
            Some(format!(
                "DELETE FROM {} WHERE {} AND (SELECT n FROM ({}) AS copies) >= {copy} LIMIT 1",
                table.target.sql(),
                row_condition(table, row),
                count(row)
            ))
        }
        (Step::Insert, DifferenceKind::Missing) => {
            let row = source_of(table, difference)?;
            let printed_alike = |column: &Column| !matches!(column.kind, Kind::Json | Kind::Vector);
            if !table.columns.iter().all(printed_alike) {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{} has no key, and copies of a row with JSON or a VECTOR cannot be counted by \
                         the text that the source prints",
                        table.name
                    ),
                )
                .advise("rowproof repair --apply mends it"));
            }
            Some(format!(
                "{} FROM DUAL WHERE ({}) < {copy}",
                insert_head(table, row),
                count(row)
            ))
        }
        _ => None,
    })
}

/// Tells whether a differing column takes values.
fn is_settable(table: &Table, difference: &Difference) -> bool {
    let mut differing = difference.columns.iter();
    differing.any(|place| table.columns.get(*place).is_some_and(Column::is_written))
}

/// Tells whether a differing column belongs to a unique index. Of an expression it is not known
/// which columns it reads, so it may be any.
fn is_unique(table: &Table, difference: &Difference) -> bool {
    let differs = |name: &str| {
        table
            .position(name)
            .is_some_and(|place| difference.columns.contains(&place))
    };
    table
        .indexes
        .iter()
        .filter(|index| index.unique)
        .flat_map(|index| &index.parts)
        .any(|part| part.column.as_deref().is_none_or(differs))
}

fn delete(table: &Table, seen: &[u8]) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        table.target.sql(),
        row_condition(table, seen)
    )
}

/// Sets the columns that differ, and every column with `ON UPDATE`, which would otherwise set
/// itself to the present time.
fn update(table: &Table, wanted: &[u8], seen: &[u8], differing: &[usize]) -> String {
    let assignments: Vec<String> = table
        .columns
        .iter()
        .zip(Cells::of(wanted))
        .enumerate()
        .filter(|(_, (column, _))| column.is_written())
        .filter(|(place, (column, _))| differing.contains(place) || column.on_update.is_some())
        .map(|(_, (column, cell))| {
            format!("{} = {}", quote(&column.name), literal(&column.kind, cell))
        })
        .collect();
    format!(
        "UPDATE {} SET {} WHERE {}",
        table.target.sql(),
        assignments.join(", "),
        row_condition(table, seen)
    )
}

fn insert(table: &Table, wanted: &[u8]) -> String {
    format!(
        "{} FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {} WHERE {})",
        insert_head(table, wanted),
        table.target.sql(),
        key_condition(table, Cells::prefix(wanted, table.key_len)),
    )
}

fn insert_head(table: &Table, wanted: &[u8]) -> String {
    let values: Vec<String> = written(table, wanted)
        .map(|(column, cell)| literal(&column.kind, cell))
        .collect();
    format!(
        "INSERT INTO {} ({}) SELECT {}",
        table.target.sql(),
        column_list(table),
        values.join(", ")
    )
}

fn source_of<'a>(table: &Table, difference: &'a Difference) -> Result<&'a [u8]> {
    difference
        .source
        .as_deref()
        .ok_or_else(|| lacks_row(table, "source"))
}

fn target_of<'a>(table: &Table, difference: &'a Difference) -> Result<&'a [u8]> {
    difference
        .target
        .as_deref()
        .ok_or_else(|| lacks_row(table, "target"))
}

fn lacks_row(table: &Table, side: &str) -> Error {
    Error::new(
        ErrorKind::Broken,
        format!("a difference of {} lacks the row of the {side}", table.name),
    )
    .advise("check the table again; the difference is then read anew")
}

/// Tables and differences for the tests of this module.
#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::row::Rows;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    /// `shop.orders (id, code UNIQUE, note, at ON UPDATE)`.
    pub fn orders() -> Table {
        let mut at = column("at", 4, "timestamp(3)", true);
        at.extra = "on update CURRENT_TIMESTAMP(3)".to_owned();
        let columns = vec![
            column("id", 1, "bigint(20)", false),
            column("code", 2, "varchar(20)", true),
            column("note", 3, "varchar(20)", true),
            at,
        ];
        let parts = vec![
            part("PRIMARY", true, 1, "id"),
            part("by_code", true, 1, "code"),
        ];
        table(TableName::new("shop", "orders"), columns, parts)
    }

    /// Packs one row.
    pub fn packed(cells: &[Option<&str>]) -> Vec<u8> {
        let mut rows = Rows::new();
        rows.push_row(cells.iter().map(|cell| cell.map(str::as_bytes)));
        rows.packed(0).to_vec()
    }

    /// A difference of these rows; the first cell is the key.
    pub fn difference(
        source: Option<&[Option<&str>]>,
        target: Option<&[Option<&str>]>,
    ) -> Difference {
        let (kind, columns) = match (source, target) {
            (Some(source), Some(target)) => {
                let differs = |place: &usize| source[*place] != target[*place];
                (
                    DifferenceKind::Changed,
                    (0..source.len()).filter(differs).collect(),
                )
            }
            (Some(_), None) => (DifferenceKind::Missing, Vec::new()),
            _ => (DifferenceKind::Extra, Vec::new()),
        };
        let key = packed(&source.or(target).expect("a row on one side")[..1]);
        Difference {
            kind,
            key,
            source: source.map(packed),
            target: target.map(packed),
            columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{difference, orders};
    use super::*;

    const SOURCE: [Option<&str>; 4] = [
        Some("1"),
        Some("A"),
        Some("it's"),
        Some("2024-01-01 00:00:00.000"),
    ];
    const TARGET: [Option<&str>; 4] = [Some("1"), Some("A"), None, Some("2024-01-01 00:00:00.000")];

    fn plan(source: Option<&[Option<&str>]>, target: Option<&[Option<&str>]>) -> Vec<String> {
        let difference = difference(source, target);
        let step = |step| statement(&orders(), &difference, step).expect("a statement");
        Step::ALL.into_iter().filter_map(step).collect()
    }

    #[test]
    fn inv_5_a_changed_row_is_updated_only_as_it_was_seen() {
        assert_eq!(
            plan(Some(&SOURCE), Some(&TARGET)),
            [
                "UPDATE `shop`.`orders` SET `note` = 'it\\'s', `at` = '2024-01-01 00:00:00.000' \
              WHERE `id` = 1 AND CAST(`code` AS BINARY) = CAST('A' AS BINARY) \
              AND `note` IS NULL AND `at` = '2024-01-01 00:00:00.000'"
            ]
        );
    }

    #[test]
    fn inv_5_a_missing_row_is_inserted_only_where_none_is() {
        assert_eq!(
            plan(Some(&SOURCE), None),
            ["INSERT INTO `shop`.`orders` (`id`, `code`, `note`, `at`) \
              SELECT 1, 'A', 'it\\'s', '2024-01-01 00:00:00.000' FROM DUAL \
              WHERE NOT EXISTS (SELECT 1 FROM `shop`.`orders` WHERE `id` = 1)"]
        );
    }

    #[test]
    fn inv_5_an_extra_row_is_deleted_only_as_it_was_seen() {
        assert_eq!(
            plan(None, Some(&TARGET)),
            ["DELETE FROM `shop`.`orders` WHERE `id` = 1 \
              AND CAST(`code` AS BINARY) = CAST('A' AS BINARY) \
              AND `note` IS NULL AND `at` = '2024-01-01 00:00:00.000'"]
        );
    }

    #[test]
    fn a_unique_column_is_mended_by_delete_and_insert() {
        let mut other = TARGET;
        other[1] = Some("B");
        let plan = plan(Some(&SOURCE), Some(&other));
        assert_eq!(plan.len(), 2);
        assert!(
            plan[0].starts_with("DELETE ") && plan[1].starts_with("INSERT "),
            "{plan:?}"
        );
    }

    #[test]
    fn a_text_key_is_guarded_by_its_bytes_too() {
        use crate::schema::testing::{column, part, table};
        let columns = vec![column("k", 1, "varchar(9)", false)];
        let name = crate::schema::TableName::new("s", "t");
        let table = table(name, columns, vec![part("PRIMARY", true, 1, "k")]);
        let difference = difference(None, Some(&[Some("a ")]));
        assert_eq!(
            statement(&table, &difference, Step::Delete)
                .expect("a statement")
                .as_deref(),
            Some(
                "DELETE FROM `s`.`t` WHERE `k` = 'a ' AND CAST(`k` AS BINARY) = CAST('a ' AS BINARY)"
            )
        );
    }

    #[test]
    fn inv_5_a_copy_of_a_row_without_a_key_is_mended_only_while_the_count_is_wrong() {
        use crate::proof::copy_key;
        use crate::row::DigestKey;
        let mut table = orders();
        table.key_len = 0;
        let key = copy_key(&DigestKey::from_bytes([1; 32]).row(b"x"), 3);
        let mut extra = difference(None, Some(&TARGET));
        extra.key.clone_from(&key);
        let row = "`id` = 1 AND CAST(`code` AS BINARY) = CAST('A' AS BINARY) \
                   AND `note` IS NULL AND `at` = '2024-01-01 00:00:00.000'";
        assert_eq!(
            statement(&table, &extra, Step::Delete).expect("a statement"),
            Some(format!(
                "DELETE FROM `shop`.`orders` WHERE {row} AND (SELECT n FROM (SELECT COUNT(*) AS n \
                 FROM `shop`.`orders` WHERE {row}) AS copies) >= 3 LIMIT 1"
            ))
        );
        let mut missing = difference(Some(&TARGET), None);
        missing.key = key;
        assert_eq!(
            statement(&table, &missing, Step::Insert).expect("a statement"),
            Some(format!(
                "INSERT INTO `shop`.`orders` (`id`, `code`, `note`, `at`) \
                 SELECT 1, 'A', NULL, '2024-01-01 00:00:00.000' FROM DUAL \
                 WHERE (SELECT COUNT(*) AS n FROM `shop`.`orders` WHERE {row}) < 3"
            ))
        );
    }
}
