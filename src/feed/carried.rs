//! What a fold carries into the ledger, against the rows that a source in memory holds.

use super::backlog::testing::spill;
use super::open_protocol::tests::change;
use super::testing::{digest_key, ledger_of};
use super::{Backlog, CommitTs, Position, RowChange, Zone, fold};
use crate::proof::Ledger;
use crate::row::Policy;
use crate::schema::Table;
use crate::schema::testing::integer_table;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

type Content = BTreeMap<u32, u32>;

fn image(id: u32, value: u32) -> String {
    format!(r#"{{"id":{{"t":8,"f":11,"v":{id}}},"value":{{"t":8,"f":65,"v":{value}}}}}"#)
}

fn insert(ts: CommitTs, id: u32, value: u32) -> RowChange {
    change(ts, &format!(r#"{{"u":{}}}"#, image(id, value)))
}

fn update(ts: CommitTs, before: (u32, u32), after: (u32, u32)) -> RowChange {
    let (before, after) = (image(before.0, before.1), image(after.0, after.1));
    change(ts, &format!(r#"{{"u":{after},"p":{before}}}"#))
}

fn delete(ts: CommitTs, id: u32, value: u32) -> RowChange {
    change(ts, &format!(r#"{{"d":{}}}"#, image(id, value)))
}

/// Returns what the changes carry into the ledger, or why they carry nothing.
fn carried(
    table: &Table,
    rows: &[RowChange],
    memory_bytes: usize,
) -> std::result::Result<Ledger, &'static str> {
    let mut backlog = Backlog::new(spill(memory_bytes));
    for row in rows {
        let position = Position::default();
        backlog.push(position, row.clone()).expect("room");
    }
    let tables = BTreeMap::from([(table.name.clone(), Arc::new(table.clone()))]);
    let (zone, key) = (Zone::default(), digest_key());
    let folded = fold(&mut backlog, &tables, zone, &key, |_| true).expect("readable rows");
    let mut sum = Ledger::default();
    for mut part in folded.expect("valid rows").parts {
        for of in part.tables().expect("a readable part").iter() {
            sum.merge(&of.ledger.clone()?);
        }
    }
    Ok(sum)
}

/// What one transaction on a source did, as TiCDC may tell it.
fn transaction(random: &mut Rng, ts: CommitTs, content: &mut Content) -> Vec<RowChange> {
    let (id, other) = (random.u32(1..12), random.u32(1..12));
    let value = random.u32(1..9);
    match (content.get(&id).copied(), content.get(&other).copied()) {
        (None, _) => {
            content.insert(id, value);
            vec![insert(ts, id, value)]
        }
        (Some(before), Some(there)) if id != other && random.bool() => {
            // Two keys trade places.
            content.insert(id, there);
            content.insert(other, before);
            let (one, two) = ((id, before), (other, there));
            vec![
                update(ts, one, (other, before)),
                update(ts, two, (id, there)),
            ]
        }
        (Some(before), None) if random.bool() => {
            content.remove(&id);
            content.insert(other, value);
            vec![update(ts, (id, before), (other, value))]
        }
        (Some(before), _) if random.u32(..3) == 0 => {
            content.remove(&id);
            vec![delete(ts, id, before)]
        }
        (Some(before), _) if random.bool() => {
            content.insert(id, value);
            // Split, its halves in any order.
            let mut halves = vec![delete(ts, id, before), insert(ts, id, value)];
            random.shuffle(&mut halves);
            halves
        }
        (Some(before), _) => {
            content.insert(id, value);
            vec![update(ts, (id, before), (id, value))]
        }
    }
}

#[test]
fn inv_4_the_ledger_of_any_history_is_the_digest_of_its_last_state() {
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let table = integer_table("s", "t");
    for _ in 0..60 {
        let (mut content, mut ledger, mut ts) = (Content::new(), Ledger::default(), 0);
        for _ in 0..random.usize(1..6) {
            let mut rows = Vec::new();
            for _ in 0..random.usize(0..30) {
                ts += 1;
                rows.extend(transaction(&mut random, ts, &mut content));
            }
            // B A B: an older part comes again, behind newer ones or before them.
            let from = random.usize(0..=rows.len());
            let again: Vec<RowChange> = rows[from..].to_vec();
            rows.extend(again);
            random.shuffle(&mut rows);
            let change = carried(&table, &rows, 1 << 20).expect("whole images");
            let on_disk = carried(&table, &rows, 300).expect("whole images");
            assert_eq!(change, on_disk, "INV-8: seed {seed}");
            ledger.merge(&change);
            assert_eq!(ledger, ledger_of(&content), "seed {seed}");
        }
    }
}

#[test]
fn an_image_that_is_not_whole_ends_the_ledger_and_says_why() {
    let table = integer_table("s", "t");
    let key_only = |text: &str, id: u32| {
        let id = format!(r#"{{"id":{{"t":8,"h":true,"f":11,"v":{id}}}}}"#);
        change(3, &format!(r#"{{"{text}":{id}}}"#))
    };
    let ends = |rows: &[RowChange]| {
        let (memory, disk) = (carried(&table, rows, 1 << 20), carried(&table, rows, 0));
        assert_eq!(memory, disk);
        memory.expect_err("no ledger")
    };
    // `delete-only-output-handle-key-columns`, a handle-key-only message, an old value that is none.
    assert!(ends(&[key_only("d", 1)]).contains("replaced or deleted"));
    assert!(ends(&[key_only("u", 1).with_key_only(true)]).contains("left"));
    let damaged = r#"{"d":{"id":{"t":8,"f":11,"v":1},"value":{"t":8,"f":65,"v":"x"}}}"#;
    assert!(ends(&[change(3, damaged)]).contains("replaced or deleted"));
    // What came and went between is of no account: only the first old and the last new image are.
    let between = [
        insert(1, 1, 10),
        key_only("u", 1).with_key_only(true),
        update(4, (1, 11), (1, 12)),
    ];
    let whole = carried(&table, &between, 1 << 20).expect("a change");
    assert_eq!(whole, ledger_of(&Content::from([(1, 12)])));
}

#[test]
fn an_old_image_of_what_was_updated_only_is_completed() {
    let table = integer_table("s", "t");
    let text = format!(
        r#"{{"u":{},"p":{{"value":{{"t":8,"f":65,"v":10}}}}}}"#,
        image(1, 11)
    );
    let mut ledger = ledger_of(&Content::from([(1, 10)]));
    ledger.merge(&carried(&table, &[change(2, &text)], 1 << 20).expect("a change"));
    assert_eq!(ledger, ledger_of(&Content::from([(1, 11)])));
}

#[test]
fn a_table_that_can_have_no_ledger_says_so_at_its_first_change() {
    let mut table = integer_table("s", "t");
    table.columns[1].policy = Some(Policy::Ignore);
    let why = carried(&table, &[insert(1, 1, 10)], 1 << 20).expect_err("no ledger");
    assert!(why.contains("policies"), "{why}");
}
