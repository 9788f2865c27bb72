//! The verdicts of tables.

use super::clock::{Moment, utc, wall_ms};
use super::number;
use crate::fence::Fence;
use crate::journal::{KindCounts, TableRow};
use crate::proof::{Counts, Reason, Verdict};
use crate::schema::TableName;
use serde::Serialize;
use std::fmt::Write;

/// A table with its verdict, ready to be shown.
#[derive(Clone, Debug)]
pub struct TableLine {
    /// The table.
    pub name: TableName,
    /// What may be said of it.
    pub verdict: Verdict,
    /// The rows of the last whole read, and how many differ now.
    pub counts: Counts,
    /// Rows that were repaired and not read since.
    pub repaired: u64,
    /// The policies by which its columns were compared less strictly; each `column: policy`.
    pub policies: Vec<String>,
}

impl TableLine {
    /// Takes the rows from the last whole read, and the kinds from what differs now.
    pub fn new(row: &TableRow, kinds: KindCounts) -> TableLine {
        TableLine {
            name: row.name.clone(),
            verdict: row.verdict.clone(),
            counts: Counts {
                missing: kinds.missing,
                extra: kinds.extra,
                changed: kinds.changed,
                ..row.counts
            },
            repaired: kinds.repaired,
            policies: row.policies.clone(),
        }
    }

    /// Tells whether policies took part in what was read: such an `equal` never looks like a strict
    /// one (INV-2).
    pub fn is_relaxed(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Returns the policies as one text, with how many rows are equal only by them.
    pub fn policies_text(&self) -> String {
        let rows = number::of(self.counts.relaxed, "row");
        format!("{} ({rows} equal only so)", self.policies.join("; "))
    }

    /// Returns the fence of the verdict; what is unproven has none.
    pub fn fence(&self) -> Option<Fence> {
        match self.verdict {
            Verdict::Equal { fence, .. } | Verdict::Different { fence, .. } => Some(fence),
            Verdict::Unproven { .. } => None,
        }
    }
}

/// Returns a verdict in a few words: `equal (read)`, `equal (read, relaxed)`, `different (3 rows)`,
/// `unproven (DDL)`.
pub fn verdict_text(line: &TableLine) -> String {
    match &line.verdict {
        Verdict::Equal { how, .. } if line.is_relaxed() => format!("equal ({how}, relaxed)"),
        Verdict::Equal { how, .. } => format!("equal ({how})"),
        Verdict::Different { rows, .. } => format!("different ({})", number::of(*rows, "row")),
        Verdict::Unproven { reason, .. } => format!("unproven ({reason})"),
    }
}

/// The table's entry in a JSON document.
#[derive(Clone, Debug, Serialize)]
pub struct TableDocument {
    /// `schema.table`.
    pub table: String,
    /// `equal`, `different` or `unproven`.
    pub verdict: &'static str,
    /// How an `equal` was earned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Why nothing is proven: a word, and the cause in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The cause in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The fence of the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<Moment>,
    /// The rows of the last whole read, and how many differ now.
    pub counts: Counts,
    /// Rows that were repaired and not read since.
    pub repaired: u64,
    /// The policies by which its columns were compared less strictly, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

impl From<&TableLine> for TableDocument {
    fn from(line: &TableLine) -> Self {
        let (how, reason, detail) = match &line.verdict {
            Verdict::Equal { how, .. } => (Some(how.to_string()), None, None),
            Verdict::Different { .. } => (None, None, None),
            Verdict::Unproven { reason, detail } => (None, Some(*reason), Some(detail.clone())),
        };
        TableDocument {
            table: line.name.to_string(),
            verdict: line.verdict.word(),
            how,
            reason,
            detail,
            fence: line.fence().map(Moment::from),
            counts: line.counts,
            repaired: line.repaired,
            policies: line.policies.clone(),
        }
    }
}

/// The columns of the table of verdicts; those from the third on are numbers.
const HEAD: [&str; 8] = [
    "TABLE",
    "VERDICT",
    "AS OF",
    "ROWS SOURCE",
    "TARGET",
    "MISSING",
    "EXTRA",
    "CHANGED",
];

/// Where the columns begin that hold numbers.
const FIRST_NUMBER: usize = 3;

/// Returns the verdicts as an aligned table, with the fences and the reasons below it.
pub fn verdicts_text(lines: &[TableLine]) -> String {
    let mut cells: Vec<[String; 8]> = vec![HEAD.map(str::to_owned)];
    cells.extend(lines.iter().map(cells_of));
    let width = |column: usize| {
        cells
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &cells {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            match column {
                0 => line = format!("{cell}{padding}"),
                FIRST_NUMBER.. => write!(line, "  {padding}{cell}").expect(super::WRITES),
                _ => write!(line, "  {cell}{padding}").expect(super::WRITES),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    push_fences(lines, &mut text);
    push_reasons(lines, &mut text);
    for line in lines.iter().filter(|line| line.is_relaxed()) {
        let policies = line.policies_text();
        writeln!(text, "{} by policy: {policies}", line.name).expect(super::WRITES);
    }
    text
}

fn cells_of(line: &TableLine) -> [String; 8] {
    let counts = &line.counts;
    [
        line.name.to_string(),
        verdict_text(line),
        line.fence()
            .map_or_else(|| "-".to_owned(), |fence| utc(wall_ms(fence.w))),
        number::count(counts.source),
        number::count(counts.target),
        number::count(counts.missing),
        number::count(counts.extra),
        number::count(counts.changed),
    ]
}

/// Names each fence once, with both its numbers.
fn push_fences(lines: &[TableLine], text: &mut String) {
    let mut fences: Vec<Fence> = lines.iter().filter_map(TableLine::fence).collect();
    fences.sort_by_key(|fence| (fence.w, fence.s));
    fences.dedup();
    for fence in fences {
        let time = utc(wall_ms(fence.w));
        writeln!(text, "as of {time}: fence W {}, S {}", fence.w, fence.s).expect(super::WRITES);
    }
}

fn push_reasons(lines: &[TableLine], text: &mut String) {
    for line in lines {
        if let Verdict::Unproven { detail, .. } = &line.verdict
            && !detail.is_empty()
        {
            writeln!(text, "{}: {detail}", line.name).expect(super::WRITES);
        }
    }
}

/// Lines for the tests of this module and of others.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A table of ten rows with this verdict.
    pub fn line(table: &str, verdict: Verdict) -> TableLine {
        TableLine {
            name: TableName::new("shop", table),
            verdict,
            counts: Counts {
                source: 1_234,
                target: 1_234,
                ..Counts::default()
            },
            repaired: 0,
            policies: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::line;
    use super::*;
    use crate::proof::How;

    #[test]
    fn verdicts_are_aligned_and_say_how_and_why() {
        let fence = Fence {
            w: 1_700_000_000_000 << 18,
            s: 9,
        };
        let mut lines = [
            line(
                "orders",
                Verdict::Equal {
                    fence,
                    how: How::Carried,
                },
            ),
            line("items", Verdict::Different { fence, rows: 1_000 }),
            line(
                "audit",
                Verdict::unproven(Reason::Ddl, "ALTER TABLE at W 5"),
            ),
        ];
        lines[1].counts.changed = 1_000;
        let text = verdicts_text(&lines);
        assert_eq!(
            text,
            "TABLE        VERDICT                 AS OF                        \
             ROWS SOURCE  TARGET  MISSING  EXTRA  CHANGED\n\
             shop.orders  equal (carried)         2023-11-14 22:13:20.000 UTC  \
             \x20     1,234   1,234        0      0        0\n\
             shop.items   different (1,000 rows)  2023-11-14 22:13:20.000 UTC  \
             \x20     1,234   1,234        0      0    1,000\n\
             shop.audit   unproven (DDL)          -                            \
             \x20     1,234   1,234        0      0        0\n\
             as of 2023-11-14 22:13:20.000 UTC: fence W 445644800000000000, S 9\n\
             shop.audit: ALTER TABLE at W 5\n"
        );
    }

    #[test]
    fn inv_2_a_relaxed_equal_never_looks_like_a_strict_one() {
        let equal = Verdict::Equal {
            fence: Fence { w: 1, s: 1 },
            how: How::Read,
        };
        let mut line = line("prices", equal);
        let strict = verdicts_text(std::slice::from_ref(&line));
        assert!(
            !strict.contains("relaxed") && !strict.contains("policy"),
            "{strict}"
        );
        line.policies = vec!["price: within 4 units in the last place".to_owned()];
        line.counts.relaxed = 2;
        let text = verdicts_text(std::slice::from_ref(&line));
        assert!(text.contains("equal (read, relaxed)"), "{text}");
        let policy = "shop.prices by policy: price: within 4 units in the last place (2 rows equal \
                      only so)\n";
        assert!(text.ends_with(policy), "{text}");
        let document = serde_json::to_value(TableDocument::from(&line)).expect("a document");
        assert_eq!(
            document["policies"][0],
            "price: within 4 units in the last place"
        );
        assert_eq!(document["counts"]["relaxed"], 2);
    }

    #[test]
    fn the_document_has_large_numbers_as_text() {
        let fence = Fence {
            w: u64::MAX,
            s: u64::MAX,
        };
        let line = line(
            "t",
            Verdict::Equal {
                fence,
                how: How::Read,
            },
        );
        let document = serde_json::to_value(TableDocument::from(&line)).expect("a document");
        assert_eq!(document["fence"]["w"], "18446744073709551615");
        assert_eq!(
            (&document["verdict"], &document["how"]),
            (&"equal".into(), &"read".into())
        );
    }
}
