//! Three roads by which a row reaches rowproof, and one canonical form: read from TiDB, read from
//! OceanBase, decoded from the feed.

use crate::lab::{Lab, PASSWORD};
use rowproof::broker::Feed;
use rowproof::database::{Catalog, ScanRequest, Server, Session, scan_sql};
use rowproof::feed::{Message, RowChange, fold};
use rowproof::row::{Canonical, Cells, Rows};
use rowproof::schema::{Table, TableName};
use rowproof::task::Task;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The canonical form of each row by that of its key.
type Forms = BTreeMap<Vec<u8>, Vec<u8>>;

/// Asserts that every row has one canonical form, whichever way it came. Both sides must be at rest.
pub async fn assert_one_form(lab: &Lab) {
    let task = task(lab);
    let mut source = Session::connect(&task.source, Server::TiDb)
        .await
        .expect("the source");
    let mut target = Session::connect(&task.target, Server::OceanBase)
        .await
        .expect("the target");
    let catalog = Catalog::read(&mut source, &task.scope)
        .await
        .expect("the tables");
    let tables: BTreeMap<TableName, Arc<Table>> = catalog
        .tables
        .into_iter()
        .map(|table| (table.name.clone(), Arc::new(table)))
        .collect();
    let mut read = BTreeMap::new();
    for (name, table) in &tables {
        let (left, right) = (
            forms(&mut source, table).await,
            forms(&mut target, table).await,
        );
        assert_eq!(
            left, right,
            "{name}: read from TiDB, and read from OceanBase"
        );
        read.insert(name.clone(), left);
    }
    let changes = changes(&task).await;
    let folded = fold(&tables, &changes).expect("changes that can be carried");
    assert_eq!(
        folded.len(),
        tables.len(),
        "the feed has changed every table"
    );
    for of in folded {
        let forms = &read[&of.table.name];
        for row in of.rows {
            let key = form(&of.table, of.table.key_len, &row.key);
            let decoded = row
                .row
                .map(|row| form(&of.table, of.table.columns.len(), &row));
            assert_eq!(
                decoded.as_ref(),
                forms.get(&key),
                "{}: decoded from the feed, and read from both databases",
                of.table.name
            );
        }
    }
}

/// Returns the task as rowproof sees it; the password comes from a file, for a test cannot set its
/// own environment.
fn task(lab: &Lab) -> Task {
    let file = lab.dir.join("password");
    std::fs::write(&file, PASSWORD).expect("the password file");
    let text = lab.task_text().replace(
        "password_env = \"ROWPROOF_TEST_PASSWORD\"",
        &format!("password_file = \"{}\"", file.display()),
    );
    Task::parse(&text).expect("a task")
}

async fn forms(session: &mut Session, table: &Table) -> Forms {
    let mut rows = Rows::new();
    session
        .scan(scan_sql(table, ScanRequest::of(None)), &mut rows)
        .await
        .expect("the rows");
    let key = |row: &[u8]| form(table, table.key_len, Cells::prefix(row, table.key_len));
    rows.iter()
        .map(|row| (key(row), form(table, table.columns.len(), row)))
        .collect()
}

fn form(table: &Table, columns: usize, packed: &[u8]) -> Vec<u8> {
    let kinds = &table.kinds()[..columns];
    Canonical::new()
        .row(kinds, packed)
        .expect("values of their types")
        .to_vec()
}

/// Reads every change that the topic holds, in the order of their commits.
async fn changes(task: &Task) -> Vec<RowChange> {
    let feed = Feed::connect(task.feed.as_ref().expect("a feed"))
        .await
        .expect("the topic");
    let ends = feed.ends().await.expect("the ends");
    let starts: Vec<i64> = ends.iter().map(|(start, _)| *start).collect();
    feed.seek(&starts).await.expect("a seek");
    let mut open: Vec<bool> = ends.iter().map(|(start, end)| start < end).collect();
    let mut changes = Vec::new();
    while open.contains(&true) {
        let record = feed.next().await.expect("a record");
        open[record.partition] &= record.offset + 1 < ends[record.partition].1;
        changes.extend(
            record
                .messages
                .into_iter()
                .filter_map(|message| match message {
                    Message::Row(change) => Some(change),
                    _ => None,
                }),
        );
    }
    changes.sort_by_key(|change| change.commit_ts);
    changes
}
