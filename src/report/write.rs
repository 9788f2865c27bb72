//! Differences and repairs written out as they are read, however many there are (INV-8).

use super::{RepairScript, difference_document, difference_text};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{DifferenceRow, Journal};
use crate::schema::{Table, TableName};
use std::io::{self, Write};

/// How many differences are held at once: a row may have many megabytes.
const PAGE_ROWS: i64 = 8;

/// Reads a table's name as people write it, `shop.orders`.
///
/// # Errors
/// If it does not name a schema and a table.
pub fn table_name(text: &str) -> Result<TableName> {
    match text.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
            Ok(TableName::new(schema, table))
        }
        _ => Err(
            Error::new(ErrorKind::Usage, "a table is named by schema and table")
                .advise("write it like shop.orders"),
        ),
    }
}

/// Writes the rows that differ for a terminal, and returns how many there are.
///
/// # Errors
/// If the journal cannot be read, does not know the table, or `out` cannot be written.
pub async fn write_diff(
    journal: &Journal,
    table: Option<&TableName>,
    out: &mut impl Write,
) -> Result<u64> {
    require_known(journal, table).await?;
    let mut rows = DifferenceRows::new(journal, table.cloned(), 0);
    let mut count = 0;
    while let Some((model, row)) = rows.next().await? {
        let text = difference_text(model, &row);
        out.write_all(text.as_bytes()).map_err(unwritable)?;
        count += 1;
    }
    if count == 0 {
        out.write_all(b"No row is known to differ. `rowproof status` says what is proven.\n")
            .map_err(unwritable)?;
    }
    out.flush().map_err(unwritable)?;
    Ok(count)
}

/// Writes the rows that differ as one JSON document, and returns how many there are.
///
/// # Errors
/// As [`write_diff`].
pub async fn write_diff_json(
    journal: &Journal,
    table: Option<&TableName>,
    out: &mut impl Write,
) -> Result<u64> {
    require_known(journal, table).await?;
    let mut rows = DifferenceRows::new(journal, table.cloned(), 0);
    let mut count = 0;
    out.write_all(b"{\"differences\":[").map_err(unwritable)?;
    while let Some((model, row)) = rows.next().await? {
        let document = difference_document(model, &row);
        let text = serde_json::to_string(&document).expect("documents have string keys");
        let comma = if count > 0 { "," } else { "" };
        write!(out, "{comma}\n{text}").map_err(unwritable)?;
        count += 1;
    }
    writeln!(out, "\n],\"count\":{count}}}")
        .and_then(|()| out.flush())
        .map_err(unwritable)?;
    Ok(count)
}

/// Writes the repair script, and returns how many rows it is about.
///
/// # Errors
/// As [`write_diff`].
pub async fn write_repair_script(
    journal: &Journal,
    table: Option<&TableName>,
    out: &mut impl Write,
) -> Result<u64> {
    require_known(journal, table).await?;
    let mut script = RepairScript::open(journal, table).await?;
    while let Some(piece) = script.next_piece().await? {
        out.write_all(piece.as_bytes()).map_err(unwritable)?;
    }
    out.flush().map_err(unwritable)?;
    Ok(script.rows())
}

/// The differences one after the other, each with the definition of its table.
#[derive(Debug)]
pub struct DifferenceRows {
    journal: Journal,
    wanted: Option<TableName>,
    after: i64,
    page: std::vec::IntoIter<DifferenceRow>,
    model: Table,
}

impl DifferenceRows {
    /// Begins behind difference number `after`, in one table or in all.
    pub fn new(journal: &Journal, wanted: Option<TableName>, after: i64) -> DifferenceRows {
        let model = Table::unknown(TableName::new("", ""));
        let page = Vec::new().into_iter();
        DifferenceRows {
            journal: journal.clone(),
            wanted,
            after,
            page,
            model,
        }
    }

    /// Returns the next difference; a table whose definition is not known has no columns.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn next(&mut self) -> Result<Option<(&Table, DifferenceRow)>> {
        if self.page.as_slice().is_empty() {
            let wanted = self.wanted.as_ref();
            let page = self
                .journal
                .differences(wanted, self.after, PAGE_ROWS)
                .await?;
            self.page = page.into_iter();
        }
        let Some(row) = self.page.next() else {
            return Ok(None);
        };
        self.after = row.id;
        if self.model.name != row.table {
            let model = self.journal.table_model(&row.table).await?;
            self.model = model.unwrap_or_else(|| Table::unknown(row.table.clone()));
        }
        Ok(Some((&self.model, row)))
    }
}

/// A misspelt name must not look like a table without differences.
async fn require_known(journal: &Journal, table: Option<&TableName>) -> Result<()> {
    match table {
        Some(table) if journal.table_model(table).await?.is_none() => Err(Error::new(
            ErrorKind::Usage,
            format!("the journal does not know {table}"),
        )
        .advise("`rowproof status` lists the tables")),
        _ => Ok(()),
    }
}

fn unwritable(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!("the output cannot be written: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{add_differences, difference, following_journal, row};
    use super::*;

    async fn script(journal: &Journal) -> String {
        let mut out = Vec::new();
        write_repair_script(journal, None, &mut out)
            .await
            .expect("a script");
        String::from_utf8(out).expect("text")
    }

    #[tokio::test]
    async fn differences_are_written_in_pages() {
        let test = following_journal().await;
        let found: Vec<_> = (0..20)
            .map(|id| difference(id, Some(row(id, Some("a"))), None))
            .collect();
        add_differences(&test.journal, "orders", &found).await;
        let mut out = Vec::new();
        let count = write_diff(&test.journal, None, &mut out)
            .await
            .expect("written");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            (count, text.matches("missing shop.orders id = ").count()),
            (20, 20)
        );

        let mut out = Vec::new();
        write_diff_json(&test.journal, None, &mut out)
            .await
            .expect("written");
        let document: serde_json::Value = serde_json::from_slice(&out).expect("one document");
        assert_eq!(document["count"], 20);
        assert_eq!(document["differences"].as_array().map(Vec::len), Some(20));
    }

    #[tokio::test]
    async fn a_script_has_all_deletes_before_all_inserts() {
        let test = following_journal().await;
        let found: Vec<_> = (0..20)
            .map(|id| match id % 2 {
                0 => difference(id, Some(row(id, None)), None),
                _ => difference(id, None, Some(row(id, None))),
            })
            .collect();
        add_differences(&test.journal, "orders", &found).await;
        let text = script(&test.journal).await;
        let last_delete = text.rfind("\nDELETE ").expect("deletes");
        let first_insert = text.find("\nINSERT ").expect("inserts");
        assert!(last_delete < first_insert);
        assert!(text.contains("-- rows:            20\n"), "{text}");
        assert!(
            text.ends_with("-- end of the script, statements: 20\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_script_keeps_to_what_differed_when_it_began() {
        let test = following_journal().await;
        add_differences(
            &test.journal,
            "orders",
            &[difference(1, None, Some(row(1, None)))],
        )
        .await;
        let mut script = RepairScript::open(&test.journal, None)
            .await
            .expect("a script");
        let table = TableName::new("shop", "orders");
        let later = super::super::testing::fence();
        let later = crate::fence::Fence {
            w: later.w + 1_000_000,
            s: later.s,
        };
        test.journal
            .close_differences_before(&table, later)
            .await
            .expect("closed");
        let mut text = String::new();
        while let Some(piece) = script.next_piece().await.expect("a piece") {
            text.push_str(&piece);
        }
        assert!(text.contains("\nDELETE "), "{text}");
    }

    #[tokio::test]
    async fn inv_5_what_was_repaired_is_not_repaired_twice() {
        let test = following_journal().await;
        add_differences(
            &test.journal,
            "orders",
            &[difference(1, None, Some(row(1, None)))],
        )
        .await;
        let found = test
            .journal
            .differences(None, 0, 9)
            .await
            .expect("differences");
        test.journal
            .mark_repaired(found[0].id)
            .await
            .expect("marked");
        assert!(script(&test.journal).await.contains("statements: 0\n"));
    }

    #[tokio::test]
    async fn a_misspelt_table_is_an_error() {
        let test = following_journal().await;
        let name = table_name("shop.oders").expect("a name");
        let error = write_diff(&test.journal, Some(&name), &mut Vec::new()).await;
        assert_eq!(error.expect_err("unknown").kind(), ErrorKind::Usage);
        assert!(table_name("orders").is_err());
    }
}
