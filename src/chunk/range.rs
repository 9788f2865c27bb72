//! Ranges of keys, and the SQL that selects them.

use crate::apply::literal;
use crate::row::Cells;
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

/// The keys behind `after` up to and including `up_to`; an open end where there is none.
///
/// Ranges that share their ends cover every key exactly once, whatever keys there are, as long as
/// both engines order keys alike; only such keys are admitted as keys of a table.
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
            conditions.push(bound(table, after, ">", false));
        }
        if let Some(up_to) = &self.up_to {
            conditions.push(bound(table, up_to, "<", true));
        }
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }
}

/// Writes the comparison of the key's columns with a bound, from the first column on.
fn bound(table: &Table, key: &Key, operator: &str, inclusive: bool) -> String {
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
