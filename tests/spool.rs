//! Kafka drops records while tables are loaded: what the load needs of the feed is kept on disk.

use crate::kafka::{drop_records, drop_records_before, ends, keep_for};
use crate::lab::{Lab, Migrating, run, wait_until};
use crate::plain_sql::assert_same_rows;
use sqlx::mysql::MySqlConnection;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

const TABLE: &str =
    "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40)) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// A lab with a table of which no row can be loaded before the session that is returned ends its
/// transaction.
async fn held_up(name: &str, spool: &str) -> (Lab, MySqlConnection, MySqlConnection) {
    let lab = Lab::new(name).await;
    let (source, target) = hold_up(&lab, spool).await;
    (lab, source, target)
}

/// Adds a table to a lab of which no row can be loaded before the second of the sessions that are
/// returned ends its transaction.
pub async fn hold_up(lab: &Lab, spool: &str) -> (MySqlConnection, MySqlConnection) {
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    for connection in [&mut source, &mut target] {
        run(connection, &format!("USE {}", lab.database)).await;
        run(connection, TABLE).await;
    }
    run(
        &mut source,
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    .await;
    lab.create_feed();
    let text = lab.task_text();
    lab.write_task(&text.replace("[tables]", &format!("spool = \"{spool}\"\n[tables]")));
    run(&mut target, "SET ob_trx_timeout = 600000000").await;
    run(&mut target, "SET ob_trx_idle_timeout = 600000000").await;
    run(&mut target, "BEGIN").await;
    run(&mut target, "INSERT INTO t VALUES (1, 'held')").await;
    (source, target)
}

/// Starts a migration and waits until its load is held up: what changes from then on comes by the feed.
fn start_held_up(lab: &Lab) -> Migrating {
    let mut migrating = lab.start_migrate();
    wait_until("it loads", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        migrating.log().contains("load:").then_some(())
    });
    migrating
}

/// Waits until all that the source has committed is kept on disk, and has Kafka drop that; what the feed
/// sends meanwhile may not be kept yet.
async fn drop_what_is_spooled(lab: &Lab, migrating: &mut Migrating) {
    let committed = {
        let status = lab.feed(&["status", "--topic", &lab.database, "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status[0]["resolved_ts"].as_u64().expect("a timestamp")
    };
    wait_until("the feed has sent it", PATIENCE, || {
        (lab.feed_checkpoint() >= committed).then_some(())
    });
    let sent = ends(lab);
    // What was asked for at the last look was read by this one.
    std::thread::sleep(Duration::from_secs(4));
    wait_until("it is kept", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status", "--json"]).json();
        (status["spool_is_current"] == true).then_some(())
    });
    drop_records_before(lab, &sent).await;
}

async fn change(source: &mut MySqlConnection, round: u32) {
    let id = round * 10;
    for statement in [
        format!("INSERT INTO t VALUES ({id}, 'new'), ({id} + 1, 'passing'), ({id} + 2, 'moves')"),
        format!("UPDATE t SET v = 'changed in {round}' WHERE id = 2"),
        format!("DELETE FROM t WHERE id = {id} + 1"),
        format!("UPDATE t SET id = {id} + 3 WHERE id = {id} + 2"),
    ] {
        run(source, &statement).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_what_kafka_drops_while_a_table_is_loaded_comes_from_the_spool() {
    let (lab, mut source, mut target) = held_up("spool", "always").await;
    let mut migrating = start_held_up(&lab);
    change(&mut source, 1).await;
    drop_what_is_spooled(&lab, &mut migrating).await;
    // Killed while it is held up, and held up again.
    migrating.kill();
    change(&mut source, 2).await;
    let mut migrating = lab.start_migrate();
    drop_what_is_spooled(&lab, &mut migrating).await;
    change(&mut source, 3).await;
    run(&mut target, "ROLLBACK").await;
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    lab.assert_batches_equal().await;
    // What is read and proven is not kept any more.
    wait_until("the spool is gone", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        (status["spool_bytes"] == 0).then_some(())
    });
    let mut files = std::fs::read_dir(lab.dir.join("state/feed-spool")).expect("its directory");
    assert!(files.next().is_none());
    change(&mut source, 4).await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_what_kafka_drops_while_a_table_is_loaded_ends_it_with_the_offsets() {
    let (lab, mut source, mut target) = held_up("unspooled", "never").await;
    let mut migrating = start_held_up(&lab);
    change(&mut source, 1).await;
    std::thread::sleep(Duration::from_secs(2));
    drop_records(&lab).await;
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(log.contains("must be read from offset"), "{log}");
    assert!(log.contains("changes are lost"), "{log}");
    run(&mut target, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_the_feed_is_spooled_when_kafka_keeps_it_for_a_short_time_only() {
    for (retention, spools) in [("-1", false), ("3600000", true)] {
        let (lab, mut source, mut target) = held_up("auto", "auto").await;
        keep_for(&lab, retention).await;
        let mut migrating = start_held_up(&lab);
        change(&mut source, 1).await;
        if spools {
            drop_what_is_spooled(&lab, &mut migrating).await;
        }
        run(&mut target, "ROLLBACK").await;
        migrating.wait_until_it_follows();
        assert_eq!(lab.dir.join("state/feed-spool").exists(), spools);
        lab.assert_check_equal();
        assert_same_rows(&lab).await;
        assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_spool_that_is_gone_or_foreign_is_noticed() {
    let (lab, mut source, mut target) = held_up("gone", "always").await;
    let mut migrating = start_held_up(&lab);
    change(&mut source, 1).await;
    drop_what_is_spooled(&lab, &mut migrating).await;
    migrating.kill();
    let (spool, away) = (lab.dir.join("state/feed-spool"), lab.dir.join("away"));
    std::fs::rename(&spool, &away).expect("a directory");
    let gone = lab.run(&["migrate"]);
    assert_eq!(gone.code, 2, "{}", gone.stderr);
    assert!(gone.stderr.contains("changes are lost"), "{}", gone.stderr);

    // That of another task.
    let other = Lab::new("owner").await;
    run(
        &mut other.source().await,
        &format!("USE {}", other.database),
    )
    .await;
    let table = TABLE.replace(" t ", &format!(" {}.t ", other.database));
    run(&mut other.source().await, &table).await;
    other.create_feed();
    let text = other.task_text();
    other.write_task(&text.replace("[tables]", "spool = \"always\"\n[tables]"));
    let loaded = other.run(&["migrate", "--until", "load"]);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    std::fs::rename(other.dir.join("state/feed-spool"), &spool).expect("a directory");
    let foreign = lab.run(&["migrate"]);
    assert_eq!(foreign.code, 2, "{}", foreign.stderr);
    assert!(
        foreign.stderr.contains("belongs to another"),
        "{}",
        foreign.stderr
    );

    std::fs::remove_dir_all(&spool).expect("a directory");
    std::fs::rename(&away, &spool).expect("a directory");
    run(&mut target, "ROLLBACK").await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_base_is_served_by_the_spool_too() {
    let (lab, mut source, mut target) = held_up("freshspool", "always").await;
    run(&mut target, "ROLLBACK").await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    run(&mut target, "BEGIN").await;
    run(&mut target, "UPDATE t SET v = 'held' WHERE id = 3").await;
    let asked = lab.run(&["resync", &format!("{}.t", lab.database)]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    wait_until("it is asked for", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        (status["spool_bytes"].as_u64() > Some(0)).then_some(())
    });
    change(&mut source, 1).await;
    drop_what_is_spooled(&lab, &mut migrating).await;
    run(&mut target, "ROLLBACK").await;
    change(&mut source, 2).await;
    wait_until("it has joined", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status", "--json"]).json();
        let bases = status["fresh_bases"].as_array();
        bases.is_some_and(Vec::is_empty).then_some(())
    });
    // One base was enough: nothing was lost that would have asked for another.
    assert!(
        !migrating.log().contains("no longer holds"),
        "{}",
        migrating.log()
    );
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
