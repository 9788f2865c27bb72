//! Ranges of keys, and the SQL that selects them.

use crate::apply::{label_number, literal};
use crate::row::{Cells, Kind};
use crate::schema::{Column, ColumnDefault, Table, quote};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The key of a row: the cells of the key's columns, none of them NULL.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Key(#[serde(with = "hex_cells")] Vec<Vec<u8>>);

impl Key {
    /// Takes the key from its cells.
    pub fn new(cells: Vec<Vec<u8>>) -> Self {
        Key(cells)
    }

    /// Takes the key of a packed row of `table`; a NULL cell, which a key never has, becomes empty.
    pub fn of(table: &Table, packed: &[u8]) -> Self {
        let cells = Cells::of(packed).take(table.key_len);
        Key(cells
            .map(|cell| cell.unwrap_or_default().to_vec())
            .collect())
    }

    /// Returns the cells.
    pub fn cells(&self) -> &[Vec<u8>] {
        &self.0
    }
}

/// The keys behind `after` up to and including `up_to`, in TiDB's order; an open end where there is
/// none.
///
/// Ranges that share their ends cover every key exactly once, whatever keys there are, because the
/// target is asked for the same keys in the same order, see [`Range::target_condition`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Range {
    /// The key behind which the range begins.
    pub after: Option<Key>,
    /// The last key of the range.
    pub up_to: Option<Key>,
}

impl Range {
    /// Returns the condition that selects the range's rows on the source, or nothing for the whole
    /// table. It goes with [`Range::source_order`] for any key, also where only the source orders
    /// it so.
    pub fn source_condition(&self, table: &Table) -> Option<String> {
        self.condition(&cursor(table), 0, numbered)
    }

    /// Returns the expressions by which the source puts rows into the order of ranges.
    ///
    /// TiDB was seen to sort BIT by its bytes where no index helps, so it is sorted as a number.
    pub fn source_order(table: &Table) -> String {
        let order = cursor(table);
        let order = order.iter().map(|column| match column.kind {
            Kind::Bit | Kind::Enum(_) | Kind::Set(_) => format!("{} + 0", quote(&column.name)),
            _ => quote(&column.name),
        });
        order.collect::<Vec<_>>().join(", ")
    }

    /// Returns the condition that selects the same rows on the target.
    ///
    /// Both servers order integers and binary keys alike. `utf8mb4_bin` texts TiDB compares by their
    /// bytes, without trailing spaces; OceanBase pads the shorter one with spaces, so that it puts
    /// `'a\x01'` before `'a'` and TiDB behind (seen on both servers). For such keys the exact
    /// comparison is of bytes, which no index serves, and beside it stands a wider range in
    /// OceanBase's own order, which one does.
    pub fn target_condition(&self, table: &Table) -> Option<String> {
        if !table.key().iter().any(is_text) {
            return self.condition(table.key(), 0, native);
        }
        let shared = self.shared_cells();
        let mut conditions = Vec::new();
        if let Some(after) = &self.after {
            for (column, cell) in table.key().iter().zip(after.cells()).take(shared) {
                let value = literal(&column.kind, Some(cell));
                conditions.push(format!("{} = {value}", quote(&column.name)));
            }
        }
        if let Some(column) = table.key().get(shared) {
            conditions.extend(self.wider_range(column, shared));
        }
        conditions.extend(self.condition(table.key(), shared, bytewise));
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }

    /// Returns the expressions by which the target puts rows into the order of ranges.
    pub fn target_order(table: &Table) -> String {
        let order = table.key().iter().map(|column| {
            let (expression, _) = bytewise(column, b"");
            expression
        });
        order.collect::<Vec<_>>().join(", ")
    }

    /// Compares the key's columns from `first` on with both ends.
    fn condition(&self, columns: &[Column], first: usize, side: Side) -> Option<String> {
        let columns = &columns[first.min(columns.len())..];
        let ends = [(&self.after, ">", false), (&self.up_to, "<", true)];
        let conditions: Vec<String> = ends
            .into_iter()
            .filter_map(|(end, operator, inclusive)| {
                let cells = &end.as_ref()?.cells()[first..];
                Some(comparison(columns, cells, operator, inclusive, side))
            })
            .collect();
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }

    /// Returns how many of the first cells both ends have in common; never all of them.
    fn shared_cells(&self) -> usize {
        let (Some(after), Some(up_to)) = (&self.after, &self.up_to) else {
            return 0;
        };
        let shared = after
            .cells()
            .iter()
            .zip(up_to.cells())
            .take_while(|(a, b)| a == b)
            .count();
        shared.min(after.cells().len().saturating_sub(1))
    }

    /// Bounds one column in OceanBase's order so widely that no row of the range is left out.
    ///
    /// Behind `after` in TiDB's order, but before it in OceanBase's, are only texts that continue
    /// it: none of them is below `after` filled up with NUL characters. Up to `up_to` in TiDB's
    /// order, but behind it in OceanBase's, are only texts that it continues with a control
    /// character: none of them is above what stands before its first one.
    fn wider_range(&self, column: &Column, place: usize) -> Vec<String> {
        let name = quote(&column.name);
        let cell = |end: &Option<Key>| Some(end.as_ref()?.cells()[place].clone());
        let (mut low, mut high) = (cell(&self.after), cell(&self.up_to));
        if is_text(column) {
            low = low.map(|cell| {
                let mut filled = without_trailing_spaces(&cell).to_vec();
                filled.resize(filled.len().max(KEY_CHARACTERS_MAX), 0);
                filled
            });
            high = high.map(|cell| {
                let control = cell.iter().position(|byte| *byte < b' ');
                cell[..control.unwrap_or(cell.len())].to_vec()
            });
        }
        let bound = |operator: &str, cell: Vec<u8>| {
            format!("{name} {operator} {}", literal(&column.kind, Some(&cell)))
        };
        low.map(|cell| bound(">=", cell))
            .into_iter()
            .chain(high.map(|cell| bound("<=", cell)))
            .collect()
    }
}

/// The most characters that a key's text can have: OceanBase's keys have up to 16 KiB, TiDB's 3 KiB.
const KEY_CHARACTERS_MAX: usize = 768;

/// How a column and a cell of it are written for a comparison.
type Side = fn(&Column, &[u8]) -> (String, String);

/// Compares in the server's own order.
fn native(column: &Column, cell: &[u8]) -> (String, String) {
    (quote(&column.name), literal(&column.kind, Some(cell)))
}

/// Compares in TiDB's own order. That of ENUM and SET is of their numbers, while a label that is
/// compared with them is compared as a text.
fn numbered(column: &Column, cell: &[u8]) -> (String, String) {
    match label_number(&column.kind, cell) {
        Some(number) => (format!("{} + 0", quote(&column.name)), number.to_string()),
        None => native(column, cell),
    }
}

/// TiDB's number of a row in a table that has no other.
pub const ROW_ID: &str = "_tidb_rowid";

/// Returns the columns by which the source is walked: those of the key, or the hidden number that
/// TiDB gives the rows of a table without one.
fn cursor(table: &Table) -> Cow<'_, [Column]> {
    if table.key_len > 0 {
        return Cow::Borrowed(table.key());
    }
    Cow::Owned(vec![Column {
        name: ROW_ID.to_owned(),
        ordinal: 0,
        kind: Kind::Integer,
        column_type: "bigint(20)".to_owned(),
        nullable: false,
        default: ColumnDefault::None,
        on_update: None,
        auto_increment: false,
        generation: None,
        collation: None,
        charset: None,
        comment: String::new(),
        policy: None,
    }])
}

/// Compares texts in TiDB's order on any server: by bytes, without trailing spaces.
fn bytewise(column: &Column, cell: &[u8]) -> (String, String) {
    if !is_text(column) {
        return native(column, cell);
    }
    let cell = literal(&Kind::Bytes, Some(without_trailing_spaces(cell)));
    (
        format!("CAST(RTRIM({}) AS BINARY)", quote(&column.name)),
        cell,
    )
}

fn is_text(column: &Column) -> bool {
    matches!(column.kind, Kind::Char | Kind::Text)
}

fn without_trailing_spaces(cell: &[u8]) -> &[u8] {
    let end = cell
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |last| last + 1);
    &cell[..end]
}

/// Writes the comparison of columns with cells, from the first on.
///
/// A composite bound `(a, b) > (x, y)` is written out as `a >= x AND (a > x OR b > y)`, because
/// neither server's optimizer turns the comparison of rows into an index range.
fn comparison(
    columns: &[Column],
    cells: &[Vec<u8>],
    operator: &str,
    inclusive: bool,
    side: Side,
) -> String {
    let mut terms: Option<String> = None;
    for (column, cell) in columns.iter().zip(cells).rev() {
        let (name, value) = side(column, cell);
        terms = Some(match terms {
            None if inclusive => format!("{name} {operator}= {value}"),
            None => format!("{name} {operator} {value}"),
            Some(rest) => {
                format!("{name} {operator}= {value} AND ({name} {operator} {value} OR ({rest}))")
            }
        });
    }
    format!("({})", terms.unwrap_or_else(|| "TRUE".to_owned()))
}

/// Writes key cells as hexadecimal, because they may be any bytes.
mod hex_cells {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(cells: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        let cells: Vec<String> = cells.iter().map(|cell| crate::row::hex(cell)).collect();
        cells.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let cells = Vec::<String>::deserialize(from)?;
        cells
            .iter()
            .map(|cell| crate::row::unhex(cell).ok_or_else(|| D::Error::custom("not hexadecimal")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    fn composite() -> Table {
        let columns = vec![
            column("a", 1, "varchar(9)", false),
            column("b", 2, "bigint(20)", false),
        ];
        let parts = vec![part("PRIMARY", true, 1, "a"), part("PRIMARY", true, 2, "b")];
        table(TableName::new("s", "t"), columns, parts)
    }

    fn key(a: &str, b: &str) -> Key {
        Key::new(vec![a.as_bytes().to_vec(), b.as_bytes().to_vec()])
    }

    #[test]
    fn composite_bounds_are_index_ranges() {
        let range = Range {
            after: Some(key("x", "1")),
            up_to: Some(key("y", "2")),
        };
        assert_eq!(
            range.source_condition(&composite()).as_deref(),
            Some(
                "(`a` >= 'x' AND (`a` > 'x' OR (`b` > 1))) AND \
                 (`a` <= 'y' AND (`a` < 'y' OR (`b` <= 2)))"
            )
        );
        assert_eq!(Range::default().source_condition(&composite()), None);
    }

    #[test]
    fn the_target_compares_texts_by_bytes_beside_a_wider_range() {
        let range = Range {
            after: Some(key("x ", "1")),
            up_to: Some(key("y\u{1}z", "2")),
        };
        let condition = range.target_condition(&composite()).expect("a condition");
        let low = format!("`a` >= 'x{}' AND ", "\\0".repeat(KEY_CHARACTERS_MAX - 1));
        let rest = condition
            .strip_prefix(&low)
            .expect("the low end is filled with NUL");
        assert_eq!(
            rest,
            "`a` <= 'y' AND \
             (CAST(RTRIM(`a`) AS BINARY) >= x'78' AND (CAST(RTRIM(`a`) AS BINARY) > x'78' OR \
             (`b` > 1))) AND \
             (CAST(RTRIM(`a`) AS BINARY) <= x'79017a' AND (CAST(RTRIM(`a`) AS BINARY) < \
             x'79017a' OR (`b` <= 2)))"
        );
        assert_eq!(Range::default().target_condition(&composite()), None);
        assert_eq!(
            Range::target_order(&composite()),
            "CAST(RTRIM(`a`) AS BINARY), `b`"
        );
    }

    #[test]
    fn what_both_ends_share_is_an_equality() {
        let range = Range {
            after: Some(key("x", "1")),
            up_to: Some(key("x", "9")),
        };
        assert_eq!(
            range.target_condition(&composite()).as_deref(),
            Some("`a` = 'x' AND `b` >= 1 AND `b` <= 9 AND (`b` > 1) AND (`b` <= 9)")
        );
    }

    #[test]
    fn labels_are_walked_by_their_numbers() {
        let columns = vec![
            column("e", 1, "enum('z','a')", false),
            column("s", 2, "set('x','y','z')", false),
        ];
        let parts = vec![part("PRIMARY", true, 1, "e"), part("PRIMARY", true, 2, "s")];
        let table = table(TableName::new("s", "t"), columns, parts);
        let range = Range {
            after: Some(key("a", "x,z")),
            up_to: None,
        };
        assert_eq!(
            range.source_condition(&table).as_deref(),
            Some("(`e` + 0 >= 2 AND (`e` + 0 > 2 OR (`s` + 0 > 5)))")
        );
        assert_eq!(Range::source_order(&table), "`e` + 0, `s` + 0");
    }

    #[test]
    fn a_table_without_a_key_is_walked_by_its_row_numbers() {
        let columns = vec![column("body", 1, "text", true)];
        let table = table(TableName::new("s", "t"), columns, Vec::new());
        let range = Range {
            after: Some(Key::new(vec![b"7".to_vec()])),
            up_to: None,
        };
        assert_eq!(
            range.source_condition(&table).as_deref(),
            Some("(`_tidb_rowid` > 7)")
        );
        assert_eq!(Range::source_order(&table), "`_tidb_rowid`");
    }

    #[test]
    fn keys_of_any_bytes_survive_storage() {
        let key = Key::new(vec![b"\x00\xff'".to_vec()]);
        let text = serde_json::to_string(&key).expect("a key is JSON");
        assert_eq!(serde_json::from_str::<Key>(&text).ok(), Some(key));
    }
}
