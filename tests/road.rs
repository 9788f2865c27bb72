//! The whole road: load, feed, fences, check, differences, repair, check.

use crate::lab::{Lab, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a table with some rows and starts a migration that has loaded it.
async fn migrated(name: &str) -> (Lab, crate::lab::Migrating) {
    let lab = Lab::new(name).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE person (id BIGINT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40) UNIQUE, \
         amount DECIMAL(9,2), seen TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3) \
         ON UPDATE CURRENT_TIMESTAMP(3)) COMMENT 'it''s people'",
    )
    .await;
    for id in 1..=50 {
        run(
            &mut source,
            &format!("INSERT INTO person (name, amount) VALUES ('p{id}', {id}.50)"),
        )
        .await;
    }
    lab.create_feed();
    let migrating = lab.start_migrate();
    wait_for_fence(&lab).await;
    (lab, migrating)
}

async fn wait_for_fence(lab: &Lab) {
    let mut target = lab.target().await;
    let sql = format!(
        "SELECT w FROM rowproof.fence WHERE task = '{}'",
        lab.database
    );
    let deadline = std::time::Instant::now() + PATIENCE;
    while texts(&mut target, &sql).await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "no fence");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_table_is_loaded_followed_and_equal() {
    let (lab, mut migrating) = migrated("road").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    for sql in [
        "UPDATE person SET amount = amount + 1 WHERE id < 10",
        "DELETE FROM person WHERE id = 20",
        "INSERT INTO person (name, amount) VALUES ('new ''x'' \\\\ \u{1f600}', NULL)",
        "UPDATE person SET id = 1000 WHERE id = 30",
        // Unique values that trade places in one transaction.
        "BEGIN",
        "UPDATE person SET name = 'tmp' WHERE id = 1",
        "UPDATE person SET name = 'p1' WHERE id = 2",
        "UPDATE person SET name = 'p2' WHERE id = 1",
        "COMMIT",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_running_migration_nothing_is_called_equal() {
    let (lab, mut migrating) = migrated("unfenced").await;
    migrating.stop();
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 2, "{}", check.stdout);
    assert!(check.stdout.contains("no-fence"), "{}", check.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_5_a_repair_is_unproven_until_it_is_read_and_never_overwrites_newer_data() {
    let (lab, _migrating) = migrated("repair").await;
    let mut target = lab.target().await;
    let (mut source, database) = (lab.source().await, &lab.database);
    run(
        &mut target,
        &format!("UPDATE {database}.person SET amount = 0 WHERE id = 5"),
    )
    .await;
    run(
        &mut target,
        &format!("DELETE FROM {database}.person WHERE id = 6"),
    )
    .await;
    run(
        &mut target,
        &format!("INSERT INTO {database}.person (id, name) VALUES (999, 'rogue')"),
    )
    .await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}", check.stderr);
    let counts = check.json()["tables"][0]["counts"].clone();
    assert_eq!(
        (&counts["missing"], &counts["extra"], &counts["changed"]),
        (&1.into(), &1.into(), &1.into())
    );
    let diff = lab.run(&["diff"]);
    assert_eq!(diff.code, 1);
    assert!(diff.stdout.contains("rogue"), "{}", diff.stdout);
    // The source moves on between the check and the repair.
    run(
        &mut source,
        &format!("UPDATE {database}.person SET amount = 77 WHERE id = 5"),
    )
    .await;
    run(
        &mut source,
        &format!("DELETE FROM {database}.person WHERE id = 6"),
    )
    .await;
    lab.run(&["check", "--json"]);
    run(
        &mut target,
        &format!("UPDATE {database}.person SET amount = 1 WHERE id = 7"),
    )
    .await;
    assert_eq!(lab.run(&["check", "--json"]).code, 1);
    let repair = lab.run(&["repair", "--apply"]);
    assert_eq!(repair.code, 0, "{}", repair.stderr);
    let status = lab.run(&["status", "--json"]).stdout;
    assert!(
        status.contains("unproven"),
        "a repair proves nothing: {status}"
    );
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_repair_mends_the_target_and_spares_what_has_changed_since() {
    let (lab, _migrating) = migrated("script").await;
    let mut target = lab.target().await;
    let database = &lab.database;
    run(
        &mut target,
        &format!("UPDATE {database}.person SET amount = 0 WHERE id IN (5, 8)"),
    )
    .await;
    run(
        &mut target,
        &format!("DELETE FROM {database}.person WHERE id = 6"),
    )
    .await;
    assert_eq!(lab.run(&["check", "--json"]).code, 1);
    let script = lab.run(&["repair"]).stdout;
    // Row 8 changes before the script runs: its statement must find nothing.
    run(
        &mut target,
        &format!("UPDATE {database}.person SET amount = 4 WHERE id = 8"),
    )
    .await;
    run(&mut target, &script).await;
    let sql = format!("SELECT amount FROM {database}.person WHERE id IN (5, 6, 8) ORDER BY id");
    let amounts: Vec<_> = texts(&mut target, &sql)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert_eq!(amounts, ["5.50", "6.50", "4.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_at_every_fence_both_snapshots_hold_the_same_rows() {
    let (lab, _migrating) = migrated("fences").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let mut writer = lab.source().await;
    let table = format!("{}.person", lab.database);
    let mut seen = Vec::new();
    for round in 0..40 {
        run(
            &mut writer,
            &format!(
                "UPDATE {table} SET amount = {round} WHERE id % 3 = {}",
                round % 3
            ),
        )
        .await;
        let fence = texts(
            &mut target,
            &format!(
                "SELECT w, ora_rowscn FROM rowproof.fence WHERE task = '{}' AND state = 'complete'",
                lab.database
            ),
        )
        .await;
        let Some([Some(w), Some(s)]) = fence.first().map(Vec::as_slice) else {
            continue;
        };
        let columns = "id, HEX(name), amount, HEX(seen)";
        run(&mut source, &format!("SET @@tidb_snapshot = '{w}'")).await;
        let left = texts(
            &mut source,
            &format!("SELECT {columns} FROM {table} ORDER BY id"),
        )
        .await;
        let sql = format!("SELECT {columns} FROM {table} AS OF SNAPSHOT {s} ORDER BY id");
        assert_eq!(left, texts(&mut target, &sql).await, "at W {w}, S {s}");
        seen.push(w.clone());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    seen.dedup();
    assert!(seen.len() > 3, "fences advance: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_caught_up_ends_by_itself() {
    let lab = Lab::new("until").await;
    let mut source = lab.source().await;
    run(
        &mut source,
        &format!("CREATE TABLE {}.t (id INT PRIMARY KEY)", lab.database),
    )
    .await;
    run(
        &mut source,
        &format!("INSERT INTO {}.t VALUES (1), (2)", lab.database),
    )
    .await;
    lab.create_feed();
    let finished = lab.run(&["migrate", "--until", "load", "--json"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    run(
        &mut source,
        &format!("INSERT INTO {}.t VALUES (3)", lab.database),
    )
    .await;
    let finished = lab.run(&["migrate", "--until", "caught-up", "--json"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_10_neither_defaults_nor_triggers_of_columns_fire_on_our_writes() {
    let lab = Lab::new("sessions").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let database = lab.database.clone();
    run(&mut source, &format!("USE {database}")).await;
    run(&mut source, "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await;
    run(
        &mut source,
        "CREATE TABLE t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v INT, day DATE, \
         at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    )
    .await;
    run(
        &mut source,
        "INSERT INTO t VALUES (0, 1, '0000-00-00', '2001-01-01 01:01:01.123456')",
    )
    .await;
    lab.create_feed();
    // A server whose defaults are hostile to a copy.
    run(
        &mut target,
        "SET GLOBAL sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE'",
    )
    .await;
    let _migrating = lab.start_migrate();
    wait_for_fence(&lab).await;
    run(
        &mut source,
        "INSERT INTO t VALUES (7, 1, NULL, '2002-02-02 02:02:02')",
    )
    .await;
    run(&mut source, "UPDATE t SET v = 2, at = at WHERE id = 7").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    let sql = format!("SELECT id, day, at FROM {database}.t WHERE id = 0");
    let row = texts(&mut target, &sql).await;
    assert_eq!(row[0][1].as_deref(), Some("0000-00-00"));
    run(
        &mut target,
        "SET GLOBAL sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_IN_DATE'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_6_the_source_is_only_read() {
    let (lab, mut migrating) = migrated("readonly").await;
    let mut source = lab.source().await;
    let grants = texts(
        &mut source,
        &format!("SHOW GRANTS FOR {}", crate::lab::USER),
    )
    .await;
    let grants: Vec<_> = grants.into_iter().flatten().flatten().collect();
    assert_eq!(
        grants,
        [format!("GRANT SELECT ON *.* TO '{}'@'%'", crate::lab::USER)]
    );
    lab.assert_check_equal();
    wait_until("the migration goes on", PATIENCE, || {
        migrating.ended().is_none().then_some(())
    });
}
