//! Three roads by which a row reaches rowproof, and one canonical form: read from TiDB, read from
//! OceanBase, decoded from the feed.

use crate::lab::{Lab, PASSWORD};
use rowproof::broker::Feed;
use rowproof::database::{Catalog, Select, Server, Session, source_scan, target_scan};
use rowproof::feed::{Backlog, Message, Position, Spill, Zone, fold};
use rowproof::row::{Canonical, Cells, DigestKey, Rows};
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
            forms(&mut source, table, source_scan(table, None)).await,
            forms(&mut target, table, target_scan(table, None, None)).await,
        );
        assert_eq!(
            left, right,
            "{name}: read from TiDB, and read from OceanBase"
        );
        read.insert(name.clone(), left);
    }
    let mut changes = changes(lab, &task).await;
    let (zone, key) = (Zone::default(), DigestKey::from_bytes([1; 32]));
    let folded = fold(&mut changes, &tables, zone, &key, |_| true).expect("readable changes");
    let [part] = &mut folded.expect("changes that can be carried").parts[..] else {
        panic!("the changes fit into memory");
    };
    let folded = part.tables().expect("the changes in memory").into_owned();
    assert_eq!(
        folded.len(),
        tables.len(),
        "the feed has changed every table"
    );
    for of in folded {
        let forms = &read[&of.table.name];
        for row in of.rows {
            let key = form(&of.table, of.table.key_len, &row.key);
            let decoded = row.state.row();
            let decoded = decoded.map(|row| form(&of.table, of.table.columns.len(), row));
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

async fn forms(session: &mut Session, table: &Table, sql: Select) -> Forms {
    let mut rows = Rows::new();
    session.scan(sql, &mut rows).await.expect("the rows");
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

/// Reads every change that the topic holds.
async fn changes(lab: &Lab, task: &Task) -> Backlog {
    let mut feed = Feed::connect(task.feed.as_ref().expect("a feed"))
        .await
        .expect("the topic");
    let ends = feed.ends().await.expect("the ends");
    let starts: Vec<i64> = ends.iter().map(|(start, _)| *start).collect();
    let starts = feed.offsets().with(starts);
    feed.seek(&starts).await.expect("a seek");
    let mut open: Vec<bool> = ends.iter().map(|(start, end)| start < end).collect();
    let mut changes = Backlog::new(Spill {
        dir: lab.dir.clone(),
        memory_bytes: usize::MAX,
    });
    while open.contains(&true) {
        let record = feed.next().await.expect("a record");
        open[record.partition] &= record.offset + 1 < ends[record.partition].1;
        let position = Position {
            partition: record.partition,
            offset: record.offset,
        };
        for message in record.messages {
            if let Message::Row(change) = message {
                changes.push(position, change).expect("memory");
            }
        }
    }
    changes
}
