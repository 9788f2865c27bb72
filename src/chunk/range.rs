//! Ranges of keys, and the SQL that selects them.

use crate::apply::literal;
use crate::row::{Cells, Kind};
use crate::schema::{Table, quote};
use serde::{Deserialize, Serialize};

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
        Key(cells.map(|cell| cell.unwrap_or_default().to_vec()).collect())
    }

    /// Returns the cells.
    pub fn cells(&self) -> &[Vec<u8>] {
        &self.0
    }
}

/// What is known of a key as the end of a chunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bound {
    /// Both engines order every other key alike against it.
    Safe,
    /// It holds a control character, which sorts before the end of a text on one engine only.
    Unsafe,
    /// It is safe if the source holds no row that fulfils this condition.
    SafeUnless(String),
}

/// Tells whether a chunk may end at `key`.
///
/// TiDB compares `utf8mb4_bin` texts by their bytes, without trailing spaces; OceanBase pads the
/// shorter one with spaces. The two disagree only where one text continues the other with spaces
/// and then a character below the space: TiDB puts `'a\x01'` behind `'a'`, OceanBase before it
/// (seen on both servers). Such continuations of a bound stand right behind it in TiDB's order,
/// between the bound and the bound with `'!'` at its end, so one small query finds them.
pub fn bound(table: &Table, key: &Key) -> Bound {
    let mut conditions = Vec::new();
    let mut equal_so_far = String::new();
    for (column, cell) in table.key().iter().zip(key.cells()) {
        let name = quote(&column.name);
        if matches!(column.kind, Kind::Char | Kind::Text) {
            if cell.iter().any(|byte| *byte < b' ') {
                return Bound::Unsafe;
            }
            let end = cell.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            let from = literal(&column.kind, Some(cell));
            let to = literal(&column.kind, Some(&[&cell[..end], b"!"].concat()));
            conditions.push(format!("({equal_so_far}{name} > {from} AND {name} < {to})"));
        }
        let value = literal(&column.kind, Some(cell));
        equal_so_far.push_str(&format!("{name} = {value} AND "));
    }
    if conditions.is_empty() { Bound::Safe } else { Bound::SafeUnless(conditions.join(" OR ")) }
}

/// The keys behind `after` up to and including `up_to`; an open end where there is none.
///
/// Ranges that share their ends cover every key exactly once, whatever keys there are, as long as
/// both engines order every key alike against the ends, see [`bound`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Range {
    /// The key behind which the range begins.
    pub after: Option<Key>,
    /// The last key of the range.
    pub up_to: Option<Key>,
}

impl Range {
    /// Returns the condition that selects the range's rows, or nothing for the whole table.
    ///
    /// A composite bound `(a, b) > (x, y)` is written out as `a >= x AND (a > x OR b > y)`, because
    /// neither server's optimizer turns the row comparison into an index range.
    pub fn condition(&self, table: &Table) -> Option<String> {
        let mut conditions = Vec::new();
        if let Some(after) = &self.after {
            conditions.push(comparison(table, after, ">", false));
        }
        if let Some(up_to) = &self.up_to {
            conditions.push(comparison(table, up_to, "<", true));
        }
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }
}

/// Writes the comparison of the key's columns with a bound, from the first column on.
fn comparison(table: &Table, key: &Key, operator: &str, inclusive: bool) -> String {
    let mut terms: Option<String> = None;
    for (column, cell) in table.key().iter().zip(key.cells()).rev() {
        let name = quote(&column.name);
        let value = literal(&column.kind, Some(cell));
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
        let columns =
            vec![column("a", 1, "varchar(9)", false), column("b", 2, "bigint(20)", false)];
        let parts = vec![part("PRIMARY", true, 1, "a"), part("PRIMARY", true, 2, "b")];
        table(TableName::new("s", "t"), columns, parts)
    }

    fn key(a: &str, b: &str) -> Key {
        Key::new(vec![a.as_bytes().to_vec(), b.as_bytes().to_vec()])
    }

    #[test]
    fn composite_bounds_are_index_ranges() {
        let range = Range { after: Some(key("x", "1")), up_to: Some(key("y", "2")) };
        assert_eq!(
            range.condition(&composite()).as_deref(),
            Some(
                "(`a` >= 'x' AND (`a` > 'x' OR (`b` > 1))) AND \
                 (`a` <= 'y' AND (`a` < 'y' OR (`b` <= 2)))"
            )
        );
        assert_eq!(Range::default().condition(&composite()), None);
    }

    #[test]
    fn a_text_bound_is_safe_unless_it_is_continued_below_the_space() {
        assert_eq!(bound(&composite(), &key("a\u{1}", "1")), Bound::Unsafe);
        assert_eq!(
            bound(&composite(), &key("a ", "1")),
            Bound::SafeUnless("(`a` > 'a ' AND `a` < 'a!')".to_owned())
        );
    }

    #[test]
    fn keys_of_any_bytes_survive_storage() {
        let key = Key::new(vec![b"\x00\xff'".to_vec()]);
        let text = serde_json::to_string(&key).expect("a key is JSON");
        assert_eq!(serde_json::from_str::<Key>(&text).ok(), Some(key));
    }
}
