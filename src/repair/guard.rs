//! The conditions by which a statement touches the row that was seen, and no other.

use crate::apply::{key_condition, literal, text_literal, widened_elements};
use crate::row::{Cells, Kind};
use crate::schema::{Column, Table, quote};

/// Returns the condition that holds for the row with exactly these packed cells.
///
/// The key comes first and bare, so that the server finds the row by its index; then comes every
/// column whose value the key's condition does not fix exactly.
pub fn row_condition(table: &Table, packed: &[u8]) -> String {
    let mut conditions = Vec::new();
    if table.key_len > 0 {
        let key = Cells::prefix(packed, table.key_len);
        conditions.push(key_condition(table, key));
    }
    for (place, (column, cell)) in table.columns.iter().zip(Cells::of(packed)).enumerate() {
        if place < table.key_len && is_exact_key(&column.kind) {
            continue;
        }
        conditions.push(cell_condition(column, cell));
    }
    conditions.join(" AND ")
}

/// Returns the statement that deletes so many copies of a row of a table without a key, as the
/// target printed it.
pub fn delete_copies(table: &Table, packed: &[u8], count: u64) -> String {
    format!(
        "DELETE FROM {} WHERE {} LIMIT {count}",
        table.target.sql(),
        row_condition(table, packed)
    )
}

/// Tells whether `column = literal` holds for one value only: a text key may be padded or folded
/// by its collation.
fn is_exact_key(kind: &Kind) -> bool {
    matches!(kind, Kind::Integer | Kind::Binary(_) | Kind::Bytes)
}

/// Returns the condition that holds for exactly this value of a column, NULL included.
///
/// Each form was tried on OceanBase. Text is compared by bytes, for a collation would take other
/// letters or trailing spaces for the same. So is JSON: as JSON values 1 equals 1.0, and as
/// characters 'a' equals 'A'.
fn cell_condition(column: &Column, cell: Option<&[u8]>) -> String {
    let name = quote(&column.name);
    let Some(bytes) = cell else {
        return format!("{name} IS NULL");
    };
    let value = literal(&column.kind, cell);
    match &column.kind {
        Kind::Integer | Kind::Decimal | Kind::Temporal(_) | Kind::Binary(_) | Kind::Bytes => {
            format!("{name} = {value}")
        }
        // As a number: a bare year of two digits would be taken for one of this century.
        Kind::Year | Kind::Bit => format!("{name} + 0 = {value}"),
        // OceanBase compares a FLOAT with six digits; widened, it is compared whole.
        Kind::Float => float_condition(&format!("{name} * 1e0"), bytes, &value),
        Kind::Double => float_condition(&name, bytes, &value),
        Kind::Enum(_) | Kind::Set(_) if column.kind.is_numbered() => {
            format!("CAST({name} AS UNSIGNED) = {value}")
        }
        Kind::Char | Kind::Text | Kind::Enum(_) | Kind::Set(_) => {
            let text = match column.charset.as_deref() {
                None | Some("utf8mb4") => name,
                Some(_) => format!("CONVERT({name} USING utf8mb4)"),
            };
            format!("CAST({text} AS BINARY) = CAST({value} AS BINARY)")
        }
        // As the target printed it: it takes -0 for 0.
        Kind::Vector => {
            let inside = bytes
                .strip_prefix(b"[")
                .and_then(|text| text.strip_suffix(b"]"));
            format!(
                "array_to_string({}, ',') = {}",
                widened_elements(&name),
                text_literal(inside.unwrap_or(bytes))
            )
        }
        Kind::Json => format!("CAST({name} AS BINARY) = CAST({value} AS BINARY)"),
    }
}

/// Compares doubles by value, and zeros by their text: 0 equals -0 and yet differs from it.
fn float_condition(expression: &str, bytes: &[u8], value: &str) -> String {
    let number = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(zero) if zero == 0.0 => {
            let text = if zero.is_sign_negative() { "-0" } else { "0" };
            format!(
                "CAST({expression} AS CHAR) = {}",
                text_literal(text.as_bytes())
            )
        }
        _ => format!("{expression} = {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::column;
    use crate::schema::{TableName, testing};

    fn condition(column_type: &str, cell: Option<&[u8]>) -> String {
        let key = testing::part("PRIMARY", true, 1, "id");
        let columns = vec![
            column("id", 1, "int(11)", false),
            column("c", 2, column_type, true),
        ];
        let table = testing::table(TableName::new("s", "t"), columns, vec![key]);
        cell_condition(&table.columns[1], cell)
    }

    #[test]
    fn each_kind_is_compared_exactly() {
        let cases: [(&str, &[u8], &str); 16] = [
            (
                "bigint(20) unsigned",
                b"18446744073709551615",
                "`c` = 18446744073709551615",
            ),
            ("decimal(9,2)", b"-1.50", "`c` = -1.50"),
            (
                "float",
                b"0.10000000149011612",
                "`c` * 1e0 = 0.10000000149011612e0",
            ),
            ("float", b"-0", "CAST(`c` * 1e0 AS CHAR) = '-0'"),
            (
                "double",
                b"1.7976931348623157e308",
                "`c` = 1.7976931348623157e308",
            ),
            ("double", b"0", "CAST(`c` AS CHAR) = '0'"),
            ("bit(64)", b"5", "`c` + 0 = 5"),
            ("year(4)", b"0000", "`c` + 0 = 0000"),
            (
                "varchar(9)",
                b"a ",
                "CAST(`c` AS BINARY) = CAST('a ' AS BINARY)",
            ),
            (
                "enum('a b')",
                b"a b",
                "CAST(`c` AS BINARY) = CAST('a b' AS BINARY)",
            ),
            (
                "json",
                b"{\"a\": 1.0}",
                "CAST(`c` AS BINARY) = CAST('{\"a\": 1.0}' AS BINARY)",
            ),
            (
                "datetime(3)",
                b"0000-00-00 00:00:00.000",
                "`c` = '0000-00-00 00:00:00.000'",
            ),
            ("varbinary(9)", b"\x00'", "`c` = x'0027'"),
            ("blob", b"", "`c` = ''"),
            ("set('','a')", b"3", "CAST(`c` AS UNSIGNED) = 3"),
            (
                "vector(2)",
                b"[0.10000000149011612,-0]",
                "array_to_string(array_map(e -> e * 1e0, `c`), ',') = '0.10000000149011612,-0'",
            ),
        ];
        for (column_type, cell, expected) in cases {
            assert_eq!(
                condition(column_type, Some(cell)),
                expected,
                "{column_type}"
            );
            assert_eq!(condition(column_type, None), "`c` IS NULL", "{column_type}");
        }
    }

    #[test]
    fn other_character_sets_are_brought_to_utf8_first() {
        let mut text = column("c", 1, "varchar(9)", true);
        text.charset = Some("gbk".to_owned());
        let table = testing::table(TableName::new("s", "t"), vec![text], Vec::new());
        assert_eq!(
            cell_condition(&table.columns[0], Some("中".as_bytes())),
            "CAST(CONVERT(`c` USING utf8mb4) AS BINARY) = CAST('中' AS BINARY)"
        );
    }
}
