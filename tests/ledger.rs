//! Ledgers: a read of the target alone shows what somebody else wrote there, at any fence.

use crate::lab::{Finished, Lab, Migrating, free_port, run, texts, wait_until};
use serde_json::Value;
use sqlx::mysql::MySqlConnection;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A lab with some tables of three rows each, and its feed; the session is in its database.
async fn lab_with(name: &str, tables: &[&str], options: &[&str]) -> (Lab, MySqlConnection) {
    let lab = Lab::new(name).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    for table in tables {
        let columns = "id INT PRIMARY KEY, v INT, note VARCHAR(40)";
        run(&mut source, &format!("CREATE TABLE {table} ({columns})")).await;
        let rows = "(1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c')";
        run(&mut source, &format!("INSERT INTO {table} VALUES {rows}")).await;
    }
    create_feed(&lab, "*", options);
    (lab, source)
}

fn create_feed(lab: &Lab, tables: &str, options: &[&str]) {
    let filter = format!("{}.{tables}", lab.database);
    let mut arguments = vec!["create", "--topic", &lab.database, "--filter", &filter];
    for option in options {
        arguments.extend(["--option", option]);
    }
    lab.feed(&arguments);
}

fn follow(lab: &Lab) -> Migrating {
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    migrating
}

/// Waits until all that is committed now is applied and proven.
async fn wait_until_proven(lab: &Lab) {
    let mut source = lab.source().await;
    run(&mut source, "BEGIN").await;
    let asked = texts(&mut source, "SELECT @@tidb_current_ts").await;
    let asked: u64 = asked[0][0]
        .as_deref()
        .unwrap_or_default()
        .parse()
        .expect("a timestamp");
    wait_until("it is proven", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        let proven = status["proven"]["w"].as_str().map(str::parse::<u64>);
        let proven = proven.and_then(Result::ok);
        proven.is_some_and(|w| w >= asked).then_some(())
    });
}

/// What a check by ledgers says, and its exit code.
fn by_ledger(lab: &Lab) -> (i32, Value) {
    let check = lab.run(&["check", "--ledger", "--json"]);
    (check.code, check.json())
}

/// A check by ledgers with a source that nobody answers for: whatever it says, it has not read it.
fn by_ledger_alone(lab: &Lab) -> (i32, Value) {
    let check = without_source(lab);
    (check.code, check.json())
}

/// The same, which may be a failure too.
fn without_source(lab: &Lab) -> Finished {
    let text = lab.task_text();
    let port = format!("port = {}", lab.source_port());
    assert_eq!(text.matches(&port).count(), 1, "{text}");
    lab.write_task(&text.replace(&port, &format!("port = {}", free_port())));
    let checked = lab.run(&["check", "--ledger", "--json"]);
    lab.write_task(&text);
    checked
}

fn table<'a>(check: &'a Value, name: &str) -> &'a Value {
    let mut tables = check["tables"].as_array().expect("tables").iter();
    let found = tables.find(|table| table["table"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {check}"))
}

/// Asserts that every table is equal by its ledger.
fn assert_all_fit((code, check): &(i32, Value)) {
    assert_eq!(*code, 0, "{check:#}");
    for table in check["tables"].as_array().expect("tables") {
        assert_eq!(table["how"], "ledger", "{table:#}");
    }
}

/// Asserts that a table has no ledger for a reason, and that both sides were read.
fn assert_read(check: &Value, name: &str, why: &str) {
    let table = table(check, name);
    let said = table["no_ledger"].as_str().unwrap_or_default();
    assert!(said.contains(why), "{table:#}");
    assert_eq!(
        (&table["verdict"], &table["how"]),
        (&"equal".into(), &"read".into()),
        "{table:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_ledgers_fit_through_kills_of_load_and_feed_and_show_what_was_written_on_the_target()
{
    let lab = Lab::new("ledger").await;
    lab.create_shop(20_000, 5);
    lab.create_feed();
    let mut writers = lab.start_writers(4, 300, &["--keep-modulus", "10"]);
    // Some chunks are proven by one process and some by the next.
    let mut died = lab.start_migrate_with(&[("ROWPROOF_DIE_AT", "chunk-proven 6")]);
    died.wait(Duration::from_secs(120));
    assert!(died.log().contains("dies at"), "{}", died.log());
    let mut migrating = follow(&lab);
    for round in 0..6_u64 {
        tokio::time::sleep(Duration::from_millis(700 + 300 * round)).await;
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        migrating.kill();
        migrating = lab.start_migrate();
        lab.feed(&["replay", "--topic", &lab.database, "--seconds", "3"]);
    }
    wait_until_proven(&lab).await;
    // No check has read both sides yet: the ledgers are those of the load.
    assert_all_fit(&by_ledger_alone(&lab));

    lab.corrupt("swap", "10", "1");
    let (code, check) = by_ledger_alone(&lab);
    assert_eq!(code, 2, "{check:#}");
    let unproven = check["tables"].as_array().expect("tables").iter();
    let unproven: Vec<&Value> = unproven.filter(|of| of["verdict"] == "unproven").collect();
    assert_eq!(unproven.len(), 1, "{check:#}");
    let why = unproven[0]["no_ledger"].as_str().unwrap_or_default();
    assert!(why.contains("does not hold what its ledger says"), "{why}");
    // With the source at hand both sides are read, and the rows are named as ever.
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 1, "{check:#}");
    let different = check["tables"].as_array().expect("tables").iter();
    let different: Vec<&Value> = different
        .filter(|of| of["verdict"] == "different")
        .collect();
    assert_eq!(different.len(), 1, "{check:#}");
    assert_eq!(different[0]["rows"], 2, "{check:#}");
    // INV-5: what was repaired, only a read of both sides settles; the ledger was right all the time.
    assert_eq!(lab.run(&["repair", "--apply"]).code, 0);
    let name = different[0]["table"].as_str().expect("a name");
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 0, "{check:#}");
    assert_read(&check, name, "repaired");
    assert_all_fit(&by_ledger_alone(&lab));

    writers.end();
    lab.assert_check_equal();
    // At rest the ledger is the digest that a read of the source gives.
    let (read, ledger) = (lab.run(&["check", "--json"]).json(), by_ledger_alone(&lab));
    assert_all_fit(&ledger);
    for of in read["tables"].as_array().expect("tables") {
        let name = of["table"].as_str().expect("a name");
        assert_eq!(of["digest"], table(&ledger.1, name)["digest"], "{name}");
    }
    // And when nothing runs any more, the last fence can still be read.
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    assert_all_fit(&by_ledger_alone(&lab));
    let status = lab.run(&["status"]).stdout;
    assert!(status.contains("equal (ledger)"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_2_an_event_that_the_feed_lost_is_not_seen_by_a_ledger_and_seen_by_a_read() {
    let (lab, mut source) = lab_with("lostevent", &["told", "lost"], &[]).await;
    // The feed that rowproof reads knows nothing of the second table.
    lab.feed(&["remove", "--topic", &lab.database]);
    create_feed(&lab, "told", &[]);
    let _migrating = follow(&lab);
    for name in ["told", "lost"] {
        run(&mut source, &format!("UPDATE {name} SET v = v + 1")).await;
    }
    wait_until_proven(&lab).await;
    assert_all_fit(&by_ledger_alone(&lab));
    let text = lab.run(&["check", "--ledger"]).stdout;
    assert!(text.contains("equal (ledger)"), "{text}");
    assert!(text.contains("an event that the feed lost"), "{text}");
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert_eq!(table(&check.json(), "told")["how"], "read");
    assert_eq!(table(&check.json(), "lost")["rows"], 3);
    // What differs is no matter of ledgers any more.
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 1, "{check:#}");
    assert_eq!(table(&check, "lost")["verdict"], "different");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_old_values_both_sides_are_read_and_it_is_said_why() {
    let options = ["output-old-value=false"];
    let (lab, mut source) = lab_with("noold", &["t"], &options).await;
    let _migrating = follow(&lab);
    run(&mut source, "INSERT INTO t VALUES (4, 40, 'd')").await;
    run(&mut source, "UPDATE t SET v = 11 WHERE id = 1").await;
    for _ in 0..2 {
        wait_until_proven(&lab).await;
        let (code, check) = by_ledger(&lab);
        assert_eq!(code, 0, "{check:#}");
        assert_read(&check, "t", "output-old-value = false");
        run(&mut source, "UPDATE t SET v = 12 WHERE id = 1").await;
        lab.assert_check_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_whole_end_a_ledger_until_a_check_begins_it_anew() {
    let options = ["delete-only-output-handle-key-columns=true"];
    let (lab, mut source) = lab_with("handlekeys", &["t", "other"], &options).await;
    let _migrating = follow(&lab);
    run(&mut source, "UPDATE t SET v = 11 WHERE id = 1").await;
    run(&mut source, "UPDATE other SET v = 11 WHERE id = 1").await;
    wait_until_proven(&lab).await;
    assert_all_fit(&by_ledger_alone(&lab));
    run(&mut source, "DELETE FROM t WHERE id = 2").await;
    wait_until_proven(&lab).await;
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 0, "{check:#}");
    assert_read(&check, "t", "replaced or deleted");
    assert_eq!(table(&check, "other")["how"], "ledger");
    // That read has begun another one.
    run(&mut source, "INSERT INTO t VALUES (2, 21, 'again')").await;
    wait_until_proven(&lab).await;
    assert_all_fit(&by_ledger_alone(&lab));
    run(&mut source, "UPDATE t SET id = 5 WHERE id = 3").await;
    wait_until_proven(&lab).await;
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 0, "{check:#}");
    assert_eq!(table(&check, "other")["how"], "ledger");
    // A change of a key is split into halves, and the one that deletes has the key only.
    assert_read(&check, "t", "replaced or deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_feed_leaves_out_of_old_images_are_completed() {
    let options = ["only-output-updated-columns=true"];
    let (lab, mut source) = lab_with("updatedonly", &["t"], &options).await;
    let _migrating = follow(&lab);
    for change in [
        "UPDATE t SET v = 11 WHERE id = 1",
        "UPDATE t SET note = NULL WHERE id = 1",
        "UPDATE t SET id = 7 WHERE id = 2",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t VALUES (3, 31, 'back')",
    ] {
        run(&mut source, change).await;
    }
    wait_until_proven(&lab).await;
    assert_all_fit(&by_ledger_alone(&lab));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_can_have_no_ledger_say_why_and_are_read() {
    let (lab, mut source) = lab_with("noledger", &["plain"], &["force-replicate=true"]).await;
    for statement in [
        "CREATE TABLE keyless (a INT, b INT)",
        "CREATE TABLE filtered (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE computed (id INT PRIMARY KEY, v INT, w INT AS (v + 1))",
        "CREATE TABLE relaxed (id INT PRIMARY KEY, d DOUBLE)",
        "INSERT INTO keyless VALUES (1, 1), (1, 1)",
        "INSERT INTO filtered VALUES (1, 1), (2, 2)",
        "INSERT INTO computed (id, v) VALUES (1, 1)",
        "INSERT INTO relaxed VALUES (1, 0.1)",
    ] {
        run(&mut source, statement).await;
    }
    let database = &lab.database;
    let filters = format!("filters = [{{ table = \"{database}.filtered\", rows = \"v > 1\" }}]");
    let policy = format!("[[policies]]\ncolumns = [\"{database}.relaxed.d\"]\nfloat_ulps = 1\n");
    let text = lab
        .task_text()
        .replace("[state]", &format!("{filters}\n[state]"));
    lab.write_task(&format!("{text}{policy}"));
    let _migrating = follow(&lab);
    for change in [
        "UPDATE plain SET v = v + 1",
        "INSERT INTO keyless VALUES (1, 1)",
        "UPDATE filtered SET v = 3",
        "UPDATE computed SET v = 2",
        "UPDATE relaxed SET d = 0.2",
    ] {
        run(&mut source, change).await;
    }
    wait_until_proven(&lab).await;
    let (code, check) = by_ledger(&lab);
    assert_eq!(code, 0, "{check:#}");
    assert_eq!(table(&check, "plain")["how"], "ledger");
    assert_read(&check, "keyless", "no key");
    assert_read(&check, "filtered", "filter");
    assert_read(&check, "computed", "virtual");
    assert_read(&check, "relaxed", "policies");
    let text = lab.run(&["check", "--ledger"]).stdout;
    assert!(
        text.contains("keyless: both sides were to be read"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_table_has_no_ledger_until_a_fresh_base_begins_one() {
    let (lab, mut source) = lab_with("baseledger", &["t", "other"], &[]).await;
    let mut migrating = follow(&lab);
    run(&mut source, "ALTER TABLE t ADD COLUMN w INT DEFAULT 9").await;
    run(&mut source, "UPDATE t SET v = v + 1").await;
    run(&mut source, "UPDATE other SET v = v + 1").await;
    wait_until("the table is stopped", PATIENCE, || {
        let (code, check) = by_ledger(&lab);
        assert_eq!(table(&check, "other")["how"], "ledger", "{check:#}");
        (code == 2).then_some(())
    });
    let (_, check) = by_ledger(&lab);
    assert_eq!(table(&check, "t")["reason"], "ddl", "{check:#}");
    let database = &lab.database;
    let mut target = lab.target().await;
    run(
        &mut target,
        &format!("GRANT DROP ON {database}.* TO {}", crate::lab::USER),
    )
    .await;
    assert_eq!(lab.run(&["resync", &format!("{database}.t")]).code, 0);
    run(&mut source, "UPDATE t SET v = v + 1 WHERE id > 1").await;
    // Nobody but the fresh base begins its ledger: no check reads the source meanwhile.
    let joined = || {
        let check = without_source(&lab);
        (check.code == 0).then(|| check.json())
    };
    let check = wait_until("the fresh base joins", PATIENCE, joined);
    assert_eq!(table(&check, "t")["how"], "ledger", "{check:#}");
    for _ in 0..3 {
        run(&mut source, "UPDATE t SET w = w + 1").await;
        migrating.kill();
        migrating = lab.start_migrate();
        run(&mut source, "UPDATE t SET v = v + 1").await;
        wait_until_proven(&lab).await;
        assert_all_fit(&by_ledger_alone(&lab));
    }
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_under_live_writes_hands_its_read_over_to_the_migration() {
    let (lab, mut source) = lab_with("handover", &["t"], &[]).await;
    let _migrating = follow(&lab);
    let columns = "id INT AUTO_INCREMENT PRIMARY KEY, v INT, body VARCHAR(200)";
    run(&mut source, &format!("CREATE TABLE created ({columns})")).await;
    let database = lab.database.clone();
    let mut writing = lab.source().await;
    let writer = tokio::spawn(async move {
        run(&mut writing, &format!("USE {database}")).await;
        for round in 0..400 {
            let insert = "INSERT INTO created (v, body) VALUES (1, REPEAT('x', 200)), (2, 'y')";
            run(&mut writing, insert).await;
            let update = format!("UPDATE created SET v = v + 1 WHERE id % 7 = {}", round % 7);
            run(&mut writing, &update).await;
            run(
                &mut writing,
                "DELETE FROM created WHERE id % 11 = 3 LIMIT 1",
            )
            .await;
        }
    });
    // The feed made it, and nothing has read it.
    let begun = || {
        let check = lab.run(&["check", "--ledger", "--json"]).json();
        let tables = check["tables"].as_array().cloned().unwrap_or_default();
        tables.into_iter().find(|of| of["table"] == "created")
    };
    let first = wait_until("the table is there", PATIENCE, begun);
    let why = first["no_ledger"].as_str().unwrap_or_default();
    assert!(why.contains("no read has begun"), "{first:#}");
    for _ in 0..4 {
        assert_all_fit(&by_ledger_alone(&lab));
        // Each check begins the ledger anew while rows come and go.
        lab.assert_check_equal();
    }
    writer.await.expect("the writer");
    wait_until_proven(&lab).await;
    assert_all_fit(&by_ledger_alone(&lab));
    lab.assert_check_equal();
}
