//! A journal with contents, for the tests of reports and of the page.

use crate::fence::Fence;
use crate::journal::{BatchRow, FoundBy, Journal, Phase, Progress, Status, now_ms};
use crate::proof::{Counts, Difference, DifferenceKind, How, Verdict};
use crate::row::Rows;
use crate::schema::testing::{column, part, table};
use crate::schema::{Table, TableName};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A journal in a directory of its own, which goes with it.
pub struct TestJournal {
    /// The journal.
    pub journal: Journal,
    dir: PathBuf,
}

impl Drop for TestJournal {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Makes an empty journal.
pub async fn empty_journal() -> TestJournal {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("rowproof-report-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let journal = Journal::open(&dir).await.expect("a journal");
    TestJournal { journal, dir }
}

/// Returns the table `shop.<name> (id, code UNIQUE, note, photo)`.
pub fn orders(name: &str) -> Table {
    let columns = vec![
        column("id", 1, "bigint(20)", false),
        column("code", 2, "varchar(20)", true),
        column("note", 3, "varchar(200)", true),
        column("photo", 4, "blob", true),
    ];
    let parts = vec![
        part("PRIMARY", true, 1, "id"),
        part("by_code", true, 1, "code"),
    ];
    table(TableName::new("shop", name), columns, parts)
}

/// Returns a fence of now.
pub fn fence() -> Fence {
    let ms = now_ms().cast_unsigned();
    Fence {
        w: ms << 18,
        s: ms * 1_000_000,
    }
}

/// Packs a row of [`orders`].
pub fn row(id: u64, note: Option<&str>) -> Vec<u8> {
    let id = id.to_string();
    let code = format!("C{id}");
    let mut rows = Rows::new();
    let cells = [Some(id.as_str()), Some(code.as_str()), note, None];
    rows.push_row(cells.map(|cell| cell.map(str::as_bytes)));
    rows.packed(0).to_vec()
}

/// Returns the difference of two rows of one id.
pub fn difference(id: u64, source: Option<Vec<u8>>, target: Option<Vec<u8>>) -> Difference {
    let (kind, columns) = match (&source, &target) {
        (Some(_), Some(_)) => (DifferenceKind::Changed, vec![2]),
        (Some(_), None) => (DifferenceKind::Missing, Vec::new()),
        _ => (DifferenceKind::Extra, Vec::new()),
    };
    let mut key = Rows::new();
    key.push_row([Some(id.to_string().as_bytes())]);
    Difference {
        kind,
        key: key.packed(0).to_vec(),
        source,
        target,
        columns,
    }
}

/// Adds a table that was read equal.
pub async fn add_equal_table(journal: &Journal, name: &str, rows: u64) {
    let counts = Counts {
        source: rows,
        target: rows,
        ..Counts::default()
    };
    let verdict = Verdict::Equal {
        fence: fence(),
        how: How::Read,
    };
    journal
        .set_table(&orders(name), FoundBy::Load, &verdict, counts, "00", 0)
        .await
        .expect("a table");
}

/// Adds rows that differ in a table.
pub async fn add_differences(journal: &Journal, name: &str, differences: &[Difference]) {
    let name = TableName::new("shop", name);
    journal
        .add_differences(&name, fence(), FoundBy::Batch, differences)
        .await
        .expect("added");
}

/// Makes the journal of a migration that follows the source.
pub async fn following_journal() -> TestJournal {
    let test = empty_journal().await;
    let fence = fence();
    let status = Status {
        task: "shop".to_owned(),
        phase: Phase::Follow,
        started_ms: now_ms() - 60_000,
        beat_ms: now_ms(),
        load: Progress {
            tables: 1,
            tables_done: 1,
            rows: 10,
            rows_estimate: 9,
            chunks: 2,
        },
        base: Some(fence.w),
        fence: Some(fence),
        proven: Some(fence),
        changes: 1_234,
        batches: 7,
        ..Status::default()
    };
    test.journal.set_status(&status).await.expect("a status");
    let batch = BatchRow {
        fence,
        from: fence.w - 1,
        changes: 3,
        keys: 2,
        differences: 0,
        verdict: "equal".to_owned(),
        at_ms: now_ms(),
    };
    test.journal.add_batch(&batch).await.expect("a batch");
    add_equal_table(&test.journal, "orders", 10).await;
    test
}
