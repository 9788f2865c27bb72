//! Differences, side by side.

use super::WRITES;
use super::clock::{Moment, utc};
use super::value::{note, shown, shown_pair};
use crate::journal::DifferenceRow;
use crate::proof::DifferenceKind;
use crate::row::{Cells, Kind, hex};
use crate::schema::Table;
use serde::Serialize;
use std::fmt::Write;

/// The bytes of a cell beyond which a document shows only its beginning.
const CELL_BYTES: usize = 4 << 10;

/// Returns a packed key as text, `id = 17`.
pub fn key_text(table: &Table, key: &[u8]) -> String {
    let parts: Vec<String> = table
        .key()
        .iter()
        .zip(Cells::of(key))
        .map(|(column, cell)| format!("{} = {}", column.name, shown(&column.kind, cell)))
        .collect();
    parts.join(", ")
}

/// Returns the word for a kind of difference, and what it means.
fn meaning(kind: DifferenceKind) -> (&'static str, &'static str) {
    match kind {
        DifferenceKind::Missing => ("missing", "only the source has it"),
        DifferenceKind::Extra => ("extra", "only the target has it"),
        DifferenceKind::Changed => ("changed", "source | target"),
    }
}

/// Returns a difference for a terminal: of a changed row the columns that differ as
/// `column: source | target`, of another the row of the side that has it.
pub fn difference_text(table: &Table, row: &DifferenceRow) -> String {
    let difference = &row.difference;
    let (word, meaning) = meaning(difference.kind);
    let key = key_text(table, &difference.key);
    let repaired = if row.repaired {
        "; repaired, not read since"
    } else {
        ""
    };
    let mut text = format!("{word} {} {key}  ({meaning}{repaired})\n", table.name);
    let source = difference.source.as_deref().map(cells);
    let target = difference.target.as_deref().map(cells);
    for (place, column) in table.columns.iter().enumerate() {
        let value = match (
            cell(source.as_deref(), place),
            cell(target.as_deref(), place),
        ) {
            (Some(left), Some(right)) if difference.columns.contains(&place) => {
                let (shown_left, shown_right) = shown_pair(&column.kind, left, right);
                let note = note(&column.kind, left, right);
                let note = note.map(|note| format!("  ({note})")).unwrap_or_default();
                format!("{shown_left} | {shown_right}{note}")
            }
            (Some(only), None) | (None, Some(only)) if place >= table.key_len => {
                shown(&column.kind, only).to_string()
            }
            _ => continue,
        };
        writeln!(text, "  {}: {value}", column.name).expect(WRITES);
    }
    writeln!(
        text,
        "  read at W {}, S {}; found by {} at {}",
        row.fence.w,
        row.fence.s,
        row.found_by,
        utc(row.at_ms)
    )
    .expect(WRITES);
    text
}

fn cells(packed: &[u8]) -> Vec<Option<&[u8]>> {
    Cells::of(packed).collect()
}

/// Returns the cell at a place of a row, if there is such a row.
fn cell<'a>(row: Option<&[Option<&'a [u8]>]>, place: usize) -> Option<Option<&'a [u8]>> {
    row?.get(place).copied()
}

/// A cell in a JSON document: exactly one of `null`, `text` and `hex` is there.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CellDocument {
    /// True for NULL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null: Option<bool>,
    /// The value as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The value in hexadecimal, where it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// The whole length in bytes, where only the beginning is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_from_bytes: Option<usize>,
}

/// A column of a differing row in a JSON document.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnDocument {
    /// The column's name.
    pub column: String,
    /// Whether the two sides differ in it.
    pub differs: bool,
    /// The value on the source; none if the row is not there.
    pub source: Option<CellDocument>,
    /// The value on the target; none if the row is not there.
    pub target: Option<CellDocument>,
}

/// A differing row in a JSON document.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceDocument {
    /// The number of the difference, growing with time.
    pub id: i64,
    /// `schema.table`.
    pub table: String,
    /// `missing`, `extra` or `changed`.
    pub kind: &'static str,
    /// The key as text.
    pub key: String,
    /// Every column, side by side.
    pub columns: Vec<ColumnDocument>,
    /// The fence at which both sides were read.
    pub fence: Moment,
    /// What found it.
    pub found_by: String,
    /// When.
    pub at: String,
    /// Whether it was repaired and waits to be read again.
    pub repaired: bool,
}

impl DifferenceDocument {
    /// Returns about how many bytes the document has, by which pages of documents are bounded.
    pub fn byte_len(&self) -> usize {
        let cell = |cell: &Option<CellDocument>| {
            cell.as_ref().map_or(0, |cell| {
                cell.text.as_ref().map_or(0, String::len) + cell.hex.as_ref().map_or(0, String::len)
            })
        };
        let columns = self.columns.iter();
        columns
            .map(|it| it.column.len() + cell(&it.source) + cell(&it.target))
            .sum()
    }
}

/// Returns a difference as a document.
pub fn difference_document(table: &Table, row: &DifferenceRow) -> DifferenceDocument {
    let difference = &row.difference;
    let source = difference.source.as_deref().map(cells);
    let target = difference.target.as_deref().map(cells);
    let both = source.is_some() && target.is_some();
    let columns = table.columns.iter().enumerate().map(|(place, column)| {
        let document = |row: Option<&[Option<&[u8]>]>| {
            cell(row, place).map(|cell| cell_document(&column.kind, cell))
        };
        ColumnDocument {
            column: column.name.clone(),
            differs: !both || difference.columns.contains(&place),
            source: document(source.as_deref()),
            target: document(target.as_deref()),
        }
    });
    DifferenceDocument {
        id: row.id,
        table: row.table.to_string(),
        kind: meaning(difference.kind).0,
        key: key_text(table, &difference.key),
        columns: columns.collect(),
        fence: Moment::from(row.fence),
        found_by: row.found_by.clone(),
        at: utc(row.at_ms),
        repaired: row.repaired,
    }
}

fn cell_document(kind: &Kind, cell: Option<&[u8]>) -> CellDocument {
    let Some(bytes) = cell else {
        return CellDocument {
            null: Some(true),
            ..CellDocument::default()
        };
    };
    let mut document = CellDocument {
        truncated_from_bytes: (bytes.len() > CELL_BYTES).then_some(bytes.len()),
        ..CellDocument::default()
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if !kind.is_binary() => {
            document.text = Some(text[..text.floor_char_boundary(CELL_BYTES)].to_owned());
        }
        _ => document.hex = Some(hex(&bytes[..bytes.len().min(CELL_BYTES)])),
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Fence;
    use crate::proof::Difference;
    use crate::row::Rows;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    fn people() -> Table {
        let columns = vec![
            column("id", 1, "bigint(20)", false),
            column("name", 2, "varchar(20)", true),
            column("photo", 3, "blob", true),
        ];
        table(
            TableName::new("s", "people"),
            columns,
            vec![part("PRIMARY", true, 1, "id")],
        )
    }

    fn packed(cells: [Option<&[u8]>; 3]) -> Vec<u8> {
        let mut rows = Rows::new();
        rows.push_row(cells);
        rows.packed(0).to_vec()
    }

    fn found(
        kind: DifferenceKind,
        source: Option<[Option<&[u8]>; 3]>,
        target: Option<[Option<&[u8]>; 3]>,
        columns: Vec<usize>,
    ) -> DifferenceRow {
        let (source, target) = (source.map(packed), target.map(packed));
        let row = source.as_ref().or(target.as_ref()).expect("a row");
        let key = Cells::prefix(row, 1).to_vec();
        DifferenceRow {
            id: 1,
            table: TableName::new("s", "people"),
            difference: Difference {
                kind,
                key,
                source,
                target,
                columns,
            },
            fence: Fence { w: 5, s: 6 },
            found_by: "batch".to_owned(),
            at_ms: 0,
            repaired: false,
        }
    }

    #[test]
    fn a_changed_row_shows_only_what_differs() {
        let row = found(
            DifferenceKind::Changed,
            Some([Some(b"1"), Some(b"ann "), Some(b"\x01")]),
            Some([Some(b"1"), None, Some(b"\x01")]),
            vec![1],
        );
        assert_eq!(
            difference_text(&people(), &row),
            "changed s.people id = 1  (source | target)\n  name: 'ann␣' | NULL\n  \
             read at W 5, S 6; found by batch at 1970-01-01 00:00:00.000 UTC\n"
        );
    }

    #[test]
    fn a_missing_row_is_shown_whole() {
        let row = found(
            DifferenceKind::Missing,
            Some([Some(b"1"), Some(b""), Some(b"\xff")]),
            None,
            vec![],
        );
        let text = difference_text(&people(), &row);
        assert!(text.starts_with(
            "missing s.people id = 1  (only the source has it)\n  name: ''\n  photo: x'ff'\n"
        ));
    }

    #[test]
    fn documents_tell_null_text_and_bytes_apart() {
        let long = vec![b'x'; CELL_BYTES + 1];
        let row = found(
            DifferenceKind::Changed,
            Some([Some(b"1"), Some(&long), Some(b"\xff")]),
            Some([Some(b"1"), None, Some(b"\xff")]),
            vec![1],
        );
        let document = difference_document(&people(), &row);
        let json = serde_json::to_value(&document).expect("a document");
        assert_eq!(
            json["columns"][1]["source"]["truncated_from_bytes"],
            CELL_BYTES + 1
        );
        assert_eq!(
            json["columns"][1]["target"],
            serde_json::json!({"null": true})
        );
        assert_eq!(
            json["columns"][2]["source"],
            serde_json::json!({"hex": "ff"})
        );
        assert_eq!(json["columns"][2]["differs"], false);
        assert!(document.byte_len() > CELL_BYTES);
    }
}
