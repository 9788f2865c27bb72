//! The repair as a script that a person reads and runs.

use super::{Step, statement};
use crate::apply::literal;
use crate::error::Result;
use crate::fence::Fence;
use crate::proof::{Difference, DifferenceKind};
use crate::row::Cells;
use crate::schema::Table;

/// The statements after which a transaction ends: few enough that no lock is held for long.
const TRANSACTION_STATEMENTS: usize = 500;

/// The bytes after which a transaction ends: far below what a server refuses.
const TRANSACTION_BYTES: usize = 4 << 20;

/// The characters of a value that a comment shows.
const COMMENT_CHARACTERS: usize = 80;

/// What the head of a script says.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// The task's name.
    pub task: &'a str,
    /// What is mended: a table's name, or `all tables`.
    pub scope: &'a str,
    /// How many rows differ.
    pub rows: u64,
    /// The newest fence at which a difference was read.
    pub fence: Option<Fence>,
    /// When the script was made, as text.
    pub made: &'a str,
}

/// Writes a script piece by piece, so that it needs no more memory than one statement (INV-8).
///
/// The caller adds the differences of a table once for each of [`Step::ALL`], then goes on to the
/// next table.
#[derive(Debug, Default)]
pub struct Script {
    statements: usize,
    bytes: usize,
    total: u64,
    fence: Option<Fence>,
}

impl Script {
    /// Begins a script.
    pub fn new() -> Self {
        Script::default()
    }

    /// Returns the head: what the script is, how to run it, and the session variables it needs.
    pub fn head(&self, header: &Header<'_>) -> String {
        let fence = match header.fence {
            Some(Fence { w, s }) => format!("W {w} on TiDB, S {s} on OceanBase"),
            None => "none".to_owned(),
        };
        let lines = [
            "rowproof repair script".to_owned(),
            format!("task:            {}", one_line(header.task)),
            format!("mends:           {}", one_line(header.scope)),
            format!("rows:            {}", header.rows),
            format!("newest fence:    {fence}"),
            format!("made:            {}", one_line(header.made)),
            "source of truth: TiDB; run this on OceanBase only".to_owned(),
            String::new(),
            "Every statement names the whole row that was seen on the target. One that matches 0"
                .to_owned(),
            "rows means that the row changed since it was compared: leave it and check again."
                .to_owned(),
            "Run this while nobody else writes these rows, with a client that stops at the first"
                .to_owned(),
            "error and shows how many rows each statement matched (mysql -vvv). While a migration"
                .to_owned(),
            "runs, use `rowproof repair --apply` instead. A repair is not a verification: the rows"
                .to_owned(),
            "stay unproven until `rowproof check` or the migration reads them equal.".to_owned(),
            "The last line counts the statements; without it the script was cut short.".to_owned(),
        ];
        let mut head = String::new();
        for line in lines {
            head.push_str(format!("-- {line}").trim_end());
            head.push('\n');
        }
        head.push_str(
            "\nSET NAMES utf8mb4;\n\
             SET SESSION time_zone = '+00:00';\n\
             SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';\n\
             SET SESSION foreign_key_checks = 0;\n",
        );
        head
    }

    /// Returns what a difference adds in this step: a comment and a statement, or nothing.
    ///
    /// # Errors
    /// As [`statement`].
    pub fn entry(
        &mut self,
        table: &Table,
        difference: &Difference,
        fence: Fence,
        step: Step,
    ) -> Result<Option<String>> {
        let Some(sql) = statement(table, difference, step)? else {
            return Ok(None);
        };
        let mut piece = String::with_capacity(sql.len() + 256);
        if self.statements == 0 {
            piece.push_str("\nSTART TRANSACTION;\n");
        }
        if self.fence != Some(fence) {
            piece.push_str(&format!("-- read at fence W {}, S {}\n", fence.w, fence.s));
            self.fence = Some(fence);
        }
        piece.push_str(&comment(table, difference, step));
        piece.push_str(&sql);
        piece.push_str(";\n");
        self.total += 1;
        self.statements += 1;
        self.bytes += piece.len();
        if self.statements >= TRANSACTION_STATEMENTS || self.bytes >= TRANSACTION_BYTES {
            piece.push_str(&self.commit());
        }
        Ok(Some(piece))
    }

    /// Returns the end of the script, whose last line says how many statements there are.
    pub fn tail(mut self) -> String {
        let commit = if self.statements > 0 {
            self.commit()
        } else {
            String::new()
        };
        format!(
            "{commit}\n-- end of the script, statements: {}\n",
            self.total
        )
    }

    fn commit(&mut self) -> String {
        self.statements = 0;
        self.bytes = 0;
        "COMMIT;\n".to_owned()
    }
}

/// Returns the comment line in front of a statement.
fn comment(table: &Table, difference: &Difference, step: Step) -> String {
    let key: Vec<String> = table
        .key()
        .iter()
        .zip(Cells::of(&difference.key))
        .map(|(column, cell)| format!("{} = {}", column.name, literal(&column.kind, cell)))
        .map(|part| shortened(&part))
        .collect();
    let mut line = format!(
        "{} {}: {}",
        word(difference.kind),
        table.name,
        key.join(", ")
    );
    if !difference.columns.is_empty() {
        let names: Vec<&str> = difference
            .columns
            .iter()
            .filter_map(|place| table.columns.get(*place))
            .map(|column| column.name.as_str())
            .collect();
        line.push_str(&format!("; differs in {}", names.join(", ")));
    }
    let halves = difference.kind == DifferenceKind::Changed && step != Step::Update;
    if halves {
        line.push_str(match step {
            Step::Delete => "; deleted here, inserted below",
            _ => "; deleted above, inserted here",
        });
    }
    format!("-- {}\n", one_line(&line))
}

fn word(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Changed => "changed",
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(COMMENT_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Escapes whatever could end a comment's line or hide what stands in it: control characters,
/// line separators, and the marks that turn the direction of writing.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        let hides = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if character.is_control() || hides {
            line.extend(character.escape_unicode());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{difference, orders};
    use super::*;

    const FENCE: Fence = Fence { w: 7, s: 8 };

    fn header() -> Header<'static> {
        Header {
            task: "shop",
            scope: "all tables",
            rows: 2,
            fence: Some(FENCE),
            made: "2024-01-01 00:00:00 UTC",
        }
    }

    #[test]
    fn a_script_reads_from_top_to_bottom() {
        let table = orders();
        let row = [Some("1"), Some("A"), Some("x"), None];
        let mut other = row;
        other[2] = Some("y");
        let mut script = Script::new();
        let mut text = script.head(&header());
        let found = [
            difference(Some(&row), Some(&other)),
            difference(None, Some(&row)),
        ];
        for step in Step::ALL {
            for difference in &found {
                let piece = script
                    .entry(&table, difference, FENCE, step)
                    .expect("a piece");
                text.push_str(piece.as_deref().unwrap_or_default());
            }
        }
        text.push_str(&script.tail());
        let (head, body) = text
            .split_once("\nSTART TRANSACTION;\n")
            .expect("a transaction");
        assert!(
            head.contains("-- newest fence:    W 7 on TiDB, S 8 on OceanBase\n"),
            "{head}"
        );
        assert!(
            head.contains("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';\n"),
            "{head}"
        );
        assert_eq!(
            body,
            "-- read at fence W 7, S 8\n\
             -- extra shop.orders: id = 1\n\
             DELETE FROM `shop`.`orders` WHERE `id` = 1 \
             AND CAST(`code` AS BINARY) = CAST('A' AS BINARY) \
             AND CAST(`note` AS BINARY) = CAST('x' AS BINARY) AND `at` IS NULL;\n\
             -- changed shop.orders: id = 1; differs in note\n\
             UPDATE `shop`.`orders` SET `note` = 'x', `at` = NULL WHERE `id` = 1 \
             AND CAST(`code` AS BINARY) = CAST('A' AS BINARY) \
             AND CAST(`note` AS BINARY) = CAST('y' AS BINARY) AND `at` IS NULL;\n\
             COMMIT;\n\n-- end of the script, statements: 2\n"
        );
    }

    #[test]
    fn transactions_are_bounded() {
        let table = orders();
        let mut script = Script::new();
        let mut text = String::new();
        for id in 0..TRANSACTION_STATEMENTS + 1 {
            let id = id.to_string();
            let found = difference(None, Some(&[Some(&id), None, None, None]));
            let piece = script
                .entry(&table, &found, FENCE, Step::Delete)
                .expect("a piece");
            text.push_str(&piece.expect("a statement"));
        }
        text.push_str(&script.tail());
        assert_eq!(text.matches("START TRANSACTION;").count(), 2);
        assert_eq!(text.matches("COMMIT;").count(), 2);
    }

    #[test]
    fn a_value_cannot_leave_its_comment() {
        let table = {
            use crate::schema::testing::{column, part, table};
            let columns = vec![column("k\nx", 1, "varchar(200)", false)];
            let name = crate::schema::TableName::new("s", "t");
            table(name, columns, vec![part("PRIMARY", true, 1, "k\nx")])
        };
        let evil = "a\n\r\u{b}\u{85}\u{2028}\u{202e}*/; DROP TABLE t; -- ";
        let found = difference(None, Some(&[Some(evil)]));
        let comment = comment(&table, &found, Step::Delete);
        assert_eq!(comment.matches('\n').count(), 1);
        assert!(comment.starts_with("-- ") && comment.ends_with('\n'));
        let hidden = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{202e}';
        assert!(!comment.trim_end().contains(hidden), "{comment:?}");
    }
}
