//! Golden messages: what TiCDC's encoders made of a few changes, in every dialect, and the rows that
//! must come of it.
//!
//! Those of the classic encoder were captured from it by `fixtures/lab/golden`, whose statements the
//! expected rows follow. Those of the new architecture were written by hand from its source
//! (pingcap/ticdc, `pkg/sink/codec/open`), because no such server runs in the lab.

use super::backlog::testing::spill;
use super::{
    Backlog, CommitTs, LastState, Message, Position, RowChange, Zone, decode, decode_claim, fold,
};
use crate::row::Cells;
use crate::schema::testing::{column, part, table};
use crate::schema::{Table, TableName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/feed/classic")
}

fn records(dialect: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = directory().join(format!("{dialect}.jsonl"));
    let text = std::fs::read_to_string(path).expect("captured messages");
    let part = |record: &serde_json::Value, name: &str| {
        let text = record[name].as_str().expect("base64");
        STANDARD.decode(text).expect("base64")
    };
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .map(|record| (part(&record, "key"), part(&record, "value")))
        .collect()
}

/// Returns the changes of rows, claims redeemed or not.
fn changes(dialect: &str, redeem: bool) -> Vec<RowChange> {
    let mut changes = Vec::new();
    for (key, value) in records(dialect) {
        for message in decode(&key, &value).expect("valid messages") {
            match message {
                Message::Row(row) => changes.push(row),
                Message::Claim(claim) if redeem => {
                    let (_, name) = claim.location.rsplit_once('/').expect("a path");
                    let file = std::fs::read(directory().join("claims").join(name));
                    let row = decode_claim(&claim, &file.expect("a claimed message"));
                    changes.push(row.expect("the whole row"));
                }
                Message::Claim(claim) => changes.push(claim.row),
                Message::Ddl(_) | Message::Watermark(_) => {}
            }
        }
    }
    changes
}

/// A table with its first column as key.
fn table_of(name: &str, columns: &[(&str, &str)]) -> Table {
    let columns = columns.iter().zip(1..);
    let columns = columns.map(|((name, kind), place)| column(name, place, kind, place > 1));
    let columns: Vec<_> = columns.collect();
    let key = part("PRIMARY", true, 1, &columns[0].name);
    table(TableName::new("golden", name), columns, vec![key])
}

/// The table `types` of the statements.
fn types() -> Table {
    let columns = [
        ("id", "bigint(20)"),
        ("u", "bigint(20) unsigned"),
        ("f", "float"),
        ("d", "double"),
        ("price", "decimal(20,5)"),
        ("name", "varchar(64)"),
        ("bin", "varbinary(64)"),
        ("four", "binary(4)"),
        ("txt", "text"),
        ("blb", "blob"),
        ("dt", "datetime(3)"),
        ("ts", "timestamp(6)"),
        ("tm", "time(2)"),
        ("dat", "date"),
        ("yr", "year(4)"),
        ("bits", "bit(64)"),
        ("e", "enum('a','b')"),
        ("s", "set('x','y','z')"),
        ("js", "json"),
    ];
    table_of("types", &columns)
}

/// The table `moved` of the statements.
fn moved() -> Table {
    table_of("moved", &[("code", "varchar(20)"), ("note", "varchar(20)")])
}

/// What is known of each key of each table: its row as texts, or what there is instead.
type States = BTreeMap<String, Result<Vec<String>, &'static str>>;

fn states(changes: &[RowChange], zone: Zone, up_to: CommitTs) -> States {
    let tables: BTreeMap<_, _> = [types(), moved()]
        .into_iter()
        .map(|table| (table.name.clone(), Arc::new(table)))
        .collect();
    let mut backlog = Backlog::new(spill(1 << 20));
    for change in changes {
        let position = Position {
            partition: 0,
            offset: 0,
        };
        backlog.push(position, change.clone()).expect("room");
    }
    let folded = fold(
        &mut backlog,
        &tables,
        zone,
        &super::testing::digest_key(),
        |row| row.commit_ts <= up_to,
    );
    let mut states = States::new();
    for mut part in folded.expect("room").expect("valid rows").parts {
        for folded in part.tables().expect("in memory").iter() {
            for row in &folded.rows {
                let key = texts(&row.key).concat();
                let state = match &row.state {
                    LastState::Row(row) => Ok(texts(row)),
                    LastState::Gone => Err("gone"),
                    LastState::Unread => Err("unread"),
                };
                states.insert(format!("{}:{key}", folded.table.name.table), state);
            }
        }
    }
    states
}

fn texts(packed: &[u8]) -> Vec<String> {
    let text = |cell: &[u8]| match std::str::from_utf8(cell) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => crate::row::hex(cell),
    };
    Cells::of(packed)
        .map(|cell| cell.map_or("NULL".to_owned(), text))
        .collect()
}

/// The first row as its last update leaves it.
fn first_row() -> Vec<String> {
    [
        "1",
        "18446744073709551615",
        "1.0000000116860974e-7",
        "1e-7",
        "-1.50000",
        "changed",
        "0041ff225c0ac2a0",
        "01000000",
        "text",
        "00ff",
        "2024-02-29 23:59:59.999",
        "2024-10-27 01:30:00.000000",
        "-838:59:59.00",
        "2024-02-29",
        "2024",
        "1",
        "b",
        "x,z",
        r#"{"a": [1.5, null], "b": 1}"#,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn large_row() -> Vec<String> {
    let mut row = vec!["NULL".to_owned(); 19];
    row[0] = "3".to_owned();
    row[5] = "of a large row".to_owned();
    row[8] = "long ".repeat(1200);
    row[11] = "2024-07-01 12:00:00.000000".to_owned();
    row
}

/// The states after all statements, and when the large row was last there.
fn assert_golden(
    dialect: &str,
    zone: &str,
    redeem: bool,
    large: Result<Vec<String>, &'static str>,
) {
    let zone: Zone = zone.parse().expect("a zone");
    let changes = changes(dialect, redeem);
    let wanted = States::from([
        ("types:1".to_owned(), Ok(first_row())),
        ("types:2".to_owned(), Err("gone")),
        ("types:3".to_owned(), Err("gone")),
        ("moved:first".to_owned(), Err("gone")),
        (
            "moved:second".to_owned(),
            Ok(vec!["second".to_owned(), "stays".to_owned()]),
        ),
    ]);
    assert_eq!(states(&changes, zone, CommitTs::MAX), wanted, "{dialect}");
    let deleted = changes
        .iter()
        .filter(|change| change.table.table == "types")
        .map(|change| change.commit_ts)
        .max();
    let before = states(&changes, zone, deleted.expect("changes") - 1);
    assert_eq!(before["types:3"], large, "{dialect}");
}

#[test]
fn every_dialect_of_the_classic_encoder_gives_the_same_rows() {
    for dialect in [
        "plain",
        "snappy",
        "lz4",
        "updated-columns",
        "delete-handle-key",
        "no-old-values",
        "raw",
    ] {
        assert_golden(dialect, "UTC", true, Ok(large_row()));
    }
    assert_golden("time-zone-shanghai", "Asia/Shanghai", true, Ok(large_row()));
    assert_golden("time-zone-shanghai", "+08:00", true, Ok(large_row()));
}

#[test]
fn large_rows_come_from_their_files_or_are_left_to_the_source() {
    assert_golden("claim-check", "UTC", true, Ok(large_row()));
    assert_golden("claim-check", "UTC", false, Err("unread"));
    assert_golden("handle-key-only", "UTC", true, Err("unread"));
}

#[test]
fn a_time_that_came_twice_leaves_its_row_to_the_source() {
    let berlin = changes("time-zone-berlin", true);
    let zone = "Europe/Berlin".parse().expect("a zone");
    let found = states(&berlin, zone, CommitTs::MAX);
    assert_eq!(found["types:1"], Err("unread"));
    assert!(found["moved:second"].is_ok());
    let wrong = states(
        &changes("time-zone-shanghai", true),
        Zone::default(),
        CommitTs::MAX,
    );
    assert_ne!(wrong["types:1"], Ok(first_row()));
}

#[test]
fn without_old_values_the_old_key_of_a_raw_update_is_not_said() {
    let found = states(
        &changes("raw-no-old-values", true),
        Zone::default(),
        CommitTs::MAX,
    );
    assert!(
        found["moved:first"].is_ok(),
        "the feed never says that it is gone"
    );
}

#[test]
fn a_file_that_is_damaged_or_of_another_row_is_refused() {
    let mut claims = Vec::new();
    for (key, value) in records("claim-check") {
        claims.extend(
            decode(&key, &value)
                .expect("valid messages")
                .into_iter()
                .filter_map(|message| match message {
                    Message::Claim(claim) => Some(claim),
                    _ => None,
                }),
        );
    }
    let (_, name) = claims[0].location.rsplit_once('/').expect("a path");
    let file = std::fs::read(directory().join("claims").join(name)).expect("a claimed message");
    assert!(decode_claim(&claims[0], &file).is_ok());
    assert!(decode_claim(&claims[1], &file).is_err());
    assert!(decode_claim(&claims[0], &file[..file.len() - 2]).is_err());
    assert!(decode_claim(&claims[0], b"{\"key\":\"AA==\",\"value\":\"\"}").is_err());
}

/// Frames one message as both encoders do.
fn framed(key: &str, value: &[u8]) -> Vec<Message> {
    let frame = |bytes: &[u8]| [&(bytes.len() as u64).to_be_bytes(), bytes].concat();
    let version = 1_u64.to_be_bytes();
    let key = [&version, frame(key.as_bytes()).as_slice()].concat();
    decode(&key, &frame(value)).expect("a valid message")
}

fn row_of(messages: Vec<Message>) -> RowChange {
    match messages.into_iter().next() {
        Some(Message::Row(row) | Message::Claim(super::Claim { row, .. })) => row,
        other => panic!("no row: {other:?}"),
    }
}

const NEW_KEY: &str = r#"{"ts":415508881418485761,"scm":"golden","tbl":"moved","t":1}"#;

#[test]
fn the_new_architecture_writes_other_keys() {
    // `scm` and `tbl` are always there, `rid` never; the order of the members is another one.
    let watermark = framed(r#"{"ts":415508881418485761,"scm":"","tbl":"","t":3}"#, b"");
    assert!(matches!(
        watermark[..],
        [Message::Watermark(415_508_881_418_485_761)]
    ));
    let ddl = framed(
        r#"{"ts":7,"scm":"golden","tbl":"","t":2}"#,
        br#"{"q":"CREATE DATABASE `golden`","t":1}"#,
    );
    assert!(matches!(&ddl[..], [Message::Ddl(ddl)] if ddl.table.table.is_empty()));
    let claim = framed(
        r#"{"ts":7,"scm":"golden","tbl":"moved","t":1,"ohk":false,"ccl":"s3://bucket/a.json","ptn":9}"#,
        br#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"a"}}}"#,
    );
    assert!(matches!(&claim[..], [Message::Claim(claim)] if claim.row.key_only));
    let keys = framed(
        r#"{"ts":7,"scm":"golden","tbl":"moved","t":1,"ohk":true}"#,
        br#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"a"}},"p":{"code":{"t":15,"h":true,"f":10,"v":"b"}}}"#,
    );
    let found = states(&[row_of(keys)], Zone::default(), CommitTs::MAX);
    assert_eq!(found["moved:a"], Err("unread"));
    assert_eq!(found["moved:b"], Err("gone"));
}

#[test]
fn the_new_architecture_escapes_otherwise() {
    // HTML is not escaped, and an update of nothing has an empty old image.
    let value = r#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"<&>"},"note":{"t":15,"f":64,"v":"—"}},"p":{}}"#;
    let row = row_of(framed(NEW_KEY, value.as_bytes()));
    let found = states(&[row], Zone::default(), CommitTs::MAX);
    assert_eq!(
        found["moved:<&>"],
        Ok(vec!["<&>".to_owned(), "—".to_owned()])
    );
    // Exponents have two digits.
    let mut members: Vec<String> = Vec::new();
    for (place, column) in types().columns.iter().enumerate() {
        let value = ["1", "null", "1e-07", "1e-07", "null"]
            .get(place)
            .unwrap_or(&"null");
        members.push(format!(r#""{}":{{"t":8,"f":65,"v":{value}}}"#, column.name));
    }
    let key = NEW_KEY.replace("moved", "types");
    let value = format!("{{\"u\":{{{}}}}}", members.join(","));
    let row = row_of(framed(&key, value.as_bytes()));
    let found = states(&[row], Zone::default(), CommitTs::MAX);
    let row = found["types:1"].clone().expect("a row");
    assert_eq!(row[2], "1.0000000116860974e-7");
    assert_eq!(row[3].parse(), Ok(1e-7));
}

#[test]
fn bytes_that_are_no_utf_8_leave_their_row_to_the_source() {
    // The new architecture copies them; the classic encoder writes an escape for them.
    let copied = [
        &br#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"a"},"note":{"t":15,"f":64,"v":""#[..],
        b"\xff",
        br#"a"}}}"#,
    ]
    .concat();
    let escaped =
        br#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"a"},"note":{"t":15,"f":64,"v":"\ufffda"}}}"#;
    for value in [copied.as_slice(), escaped] {
        let found = states(
            &[row_of(framed(NEW_KEY, value))],
            Zone::default(),
            CommitTs::MAX,
        );
        assert_eq!(found["moved:a"], Err("unread"));
    }
    // What looks like the escape, and the character itself, are what they are.
    let genuine =
        r#"{"u":{"code":{"t":15,"h":true,"f":10,"v":"a"},"note":{"t":15,"f":64,"v":"\\ufffd�"}}}"#;
    let row = row_of(framed(NEW_KEY, genuine.as_bytes()));
    let found = states(&[row], Zone::default(), CommitTs::MAX);
    assert_eq!(
        found["moved:a"],
        Ok(vec!["a".to_owned(), "\\ufffd\u{fffd}".to_owned()])
    );
}
