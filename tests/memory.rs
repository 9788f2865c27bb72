//! Memory is bounded whatever the table.

use crate::lab::{Lab, peak_kib, run, wait_until};
use crate::plain_sql::assert_same_rows;
use sqlx::mysql::MySqlConnection;
use std::time::Duration;

/// The bound of the whole program, in KiB.
pub const RESIDENT_MAX_KIB: u64 = 300 << 10;

/// How often the table of the large transaction is doubled: its old and new rows are 140 MB.
const DOUBLINGS_OF_TRANSACTION: u32 = 6;

/// How often the table of a thousand rows of a kilobyte is doubled: 128 MB in the end.
const DOUBLINGS: u32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_a_large_table_is_loaded_and_checked_in_bounded_memory() {
    let lab = Lab::new("memory").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    fill(&mut source, DOUBLINGS).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    let peak = peak_kib(migrating.pid()).expect("the migration runs");
    assert!(peak < RESIDENT_MAX_KIB, "migrate took {peak} KiB");
    let (code, peak) = lab.check_measured();
    assert_eq!(code, Some(0));
    assert!(
        (1..RESIDENT_MAX_KIB).contains(&peak),
        "check took {peak} KiB"
    );
}

/// Makes a table of a thousand rows of a kilobyte each, and doubles it.
async fn fill(source: &mut MySqlConnection, doublings: u32) {
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, body VARCHAR(2000))";
    run(source, table).await;
    let rows: Vec<String> = (0..1_000)
        .map(|id| format!("({id}, REPEAT('x', 1000))"))
        .collect();
    let rows = format!("INSERT INTO t VALUES {}", rows.join(","));
    run(source, &rows).await;
    for doubling in 0..doublings {
        let more = 1_000 << doubling;
        let double = format!("INSERT INTO t SELECT id + {more}, body FROM t");
        run(source, &double).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_a_large_transaction_is_followed_in_bounded_memory() {
    let lab = Lab::new("large").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    fill(&mut source, DOUBLINGS_OF_TRANSACTION).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    // Every key is left and taken by another row, in one transaction.
    let change = "UPDATE t SET body = CONCAT('y', body), id = id + 1 ORDER BY id DESC";
    run(&mut source, change).await;
    // While it is being applied.
    tokio::time::sleep(Duration::from_secs(6)).await;
    migrating.kill();
    migrating = lab.start_migrate();
    wait_until("it is caught up", Duration::from_secs(240), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        (lab.run(&["check", "--json"]).code == 0).then_some(())
    });
    let peak = peak_kib(migrating.pid()).expect("the migration runs");
    assert!(peak < RESIDENT_MAX_KIB, "following took {peak} KiB");
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
