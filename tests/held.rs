//! A table that cannot go on is held, alone.

use crate::lab::{Lab, Migrating, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use serde_json::Value;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Begins to migrate two tables, `t` and `other`, each with three rows.
async fn followed(name: &str) -> (Lab, Migrating) {
    let lab = Lab::new(name).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    for table in ["t", "other"] {
        let columns = "id INT PRIMARY KEY, v INT, note VARCHAR(40)";
        run(&mut source, &format!("CREATE TABLE {table} ({columns})")).await;
        let rows = "(1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c')";
        run(&mut source, &format!("INSERT INTO {table} VALUES {rows}")).await;
    }
    lab.create_feed();
    let migrating = lab.start_migrate();
    wait_until("it follows", PATIENCE, || {
        migrating.log().contains("follow").then_some(())
    });
    (lab, migrating)
}

/// Returns what the status says of a table.
fn status_of(lab: &Lab, table: &str) -> Value {
    let name = format!("{}.{table}", lab.database);
    let status = lab.run(&["status", "--json"]).json();
    let tables = status["tables"].as_array().expect("tables");
    let found = tables.iter().find(|of| of["table"] == name.as_str());
    found.cloned().unwrap_or_default()
}

/// Waits until the status calls a table held, and returns the cause.
fn wait_until_held(lab: &Lab, table: &str) -> String {
    wait_until("the table is held", PATIENCE, || {
        let status = status_of(lab, table);
        let held = status["verdict"] == "unproven" && status["reason"] == "held";
        held.then(|| status["detail"].as_str().unwrap_or_default().to_owned())
    })
}

/// Returns the verdict and the cause that a check gives for a table.
fn checked(check: &Value, table: &str) -> (String, String) {
    let tables = check["tables"].as_array().expect("tables");
    let found = tables.iter().find(|of| of["table"] == table);
    let found = found.expect("the table");
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (
        text("verdict"),
        format!("{} {}", text("reason"), text("detail")),
    )
}

async fn ids(lab: &Lab, table: &str) -> Vec<String> {
    let sql = format!("SELECT id FROM {}.{table} ORDER BY id", lab.database);
    let rows = texts(&mut lab.target().await, &sql).await;
    rows.into_iter().flatten().flatten().collect()
}

fn page(lab: &Lab, path: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", lab.web_port);
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", &url])
        .output();
    String::from_utf8_lossy(&output.expect("curl").stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_row_that_the_target_refuses_holds_its_table_and_no_other() {
    let (lab, mut migrating) = followed("refused").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let database = lab.database.clone();
    run(
        &mut target,
        &format!("CREATE UNIQUE INDEX only_here ON {database}.t (note)"),
    )
    .await;
    run(&mut source, &format!("USE {database}")).await;
    run(&mut source, "BEGIN").await;
    run(
        &mut source,
        "INSERT INTO t VALUES (4, 40, 'canary-note'), (5, 50, 'canary-note')",
    )
    .await;
    run(
        &mut source,
        "INSERT INTO other VALUES (4, 40, 'canary-note')",
    )
    .await;
    run(&mut source, "COMMIT").await;
    let detail = wait_until_held(&lab, "t");
    assert!(
        detail.contains("1062") && detail.contains("offset"),
        "{detail}"
    );
    let letter = texts(
        &mut target,
        &format!(
            "SELECT topic, feed_offset, reason FROM rowproof.dead_letter WHERE task = '{database}'"
        ),
    )
    .await;
    assert_eq!(letter[0][0].as_deref(), Some(database.as_str()));
    // What comes later is applied to the other table, and proven.
    run(&mut source, "INSERT INTO t VALUES (6, 60, 'x')").await;
    run(&mut source, "UPDATE other SET v = 41 WHERE id = 4").await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 2, "{}", check.stdout);
    let (word, detail) = checked(&check.json(), "t");
    assert!(
        word == "unproven" && detail.starts_with("held"),
        "{word} {detail}"
    );
    assert_eq!(checked(&check.json(), "other").0, "equal");
    assert_eq!(
        ids(&lab, "t").await,
        ["1", "2", "3"],
        "nothing of the batch"
    );
    assert_eq!(ids(&lab, "other").await, ["1", "2", "3", "4"]);
    for path in ["/", "/api/v1/tables"] {
        let text = page(&lab, path);
        assert!(
            text.contains("1062") && text.contains("offset"),
            "{path}: {text}"
        );
    }
    assert!(page(&lab, "/metrics").contains("rowproof_held_tables 1"));
    // A restart remembers it, and the other table goes on.
    migrating.kill();
    let mut again = lab.start_migrate();
    run(&mut source, "DELETE FROM other WHERE id = 1").await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(
        checked(&check.json(), "other").0,
        "equal",
        "{}",
        check.stdout
    );
    assert_eq!(checked(&check.json(), "t").0, "unproven");
    assert_eq!(again.stop(), 2, "{}", again.log());
    assert!(!again.log().contains("canary-note"), "INV-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_drops_on_the_target_is_held_and_no_other() {
    let (lab, _migrating) = followed("dropped").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let database = lab.database.clone();
    run(&mut target, &format!("DROP TABLE {database}.t")).await;
    run(&mut source, &format!("UPDATE {database}.t SET v = 1")).await;
    run(&mut source, &format!("UPDATE {database}.other SET v = 1")).await;
    let detail = wait_until_held(&lab, "t");
    assert!(detail.contains("does not exist"), "{detail}");
    let check = lab.run(&["check", "--json"]);
    assert_eq!(
        checked(&check.json(), "other").0,
        "equal",
        "{}",
        check.stdout
    );
}

/// Sends a record with one key in its frame, as nothing but damage would.
fn send(lab: &Lab, key: &str, value: &[u8]) {
    let mut framed = 1_u64.to_be_bytes().to_vec();
    framed.extend((key.len() as u64).to_be_bytes());
    framed.extend(key.as_bytes());
    crate::kafka::send(lab, 1, Some(&framed), value);
}

/// Returns a timestamp of the source that is soon to be passed by the feed.
async fn soon(lab: &Lab) -> u64 {
    let mut source = lab.source().await;
    run(&mut source, "BEGIN").await;
    let now = texts(&mut source, "SELECT @@tidb_current_ts").await;
    let now: u64 = now[0][0]
        .as_deref()
        .and_then(|ts| ts.parse().ok())
        .expect("a timestamp");
    now + (2_000 << 18)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_message_holds_its_table_and_no_other() {
    let (lab, mut migrating) = followed("damaged").await;
    let mut source = lab.source().await;
    let database = lab.database.clone();
    let key =
        |table: &str, ts: u64| format!(r#"{{"ts":{ts},"scm":"{database}","tbl":"{table}","t":1}}"#);
    // One value is no row, the other one ends before it should.
    let ts = soon(&lab).await;
    let mut value = 5_u64.to_be_bytes().to_vec();
    value.extend(b"{\"u\":");
    send(&lab, &key("t", ts), &value);
    let detail = wait_until_held(&lab, "t");
    assert!(
        detail.contains("not valid") && detail.contains("partition 1"),
        "{detail}"
    );
    assert!(detail.contains(&ts.to_string()), "{detail}");
    run(&mut source, &format!("UPDATE {database}.other SET v = 7")).await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(
        checked(&check.json(), "other").0,
        "equal",
        "{}",
        check.stdout
    );
    send(&lab, &key("other", soon(&lab).await), &99_u64.to_be_bytes());
    wait_until_held(&lab, "other");
    assert!(migrating.ended().is_none(), "{}", migrating.log());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        assert_eq!(status_of(&lab, "t")["verdict"], "unproven");
    }
}

/// Waits until the status calls a table equal again.
fn wait_until_equal(lab: &Lab, migrating: &mut Migrating, table: &str) {
    wait_until("the table is equal again", PATIENCE * 2, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        (status_of(lab, table)["verdict"] == "equal").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_held_table_is_loaded_anew_and_followed_again_beside_the_others() {
    let (lab, mut migrating) = followed("resync").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let database = lab.database.clone();
    let index = format!("CREATE UNIQUE INDEX only_here ON {database}.t (note)");
    run(&mut target, &index).await;
    run(&mut source, &format!("USE {database}")).await;
    run(
        &mut source,
        "INSERT INTO t VALUES (4, 40, 'a'), (5, 50, 'b')",
    )
    .await;
    wait_until_held(&lab, "t");
    // Not mended yet: the load meets the index again, and says so.
    let asked = lab.run(&["resync", &format!("{database}.t")]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    let failed = wait_until("it fails", PATIENCE, || {
        let detail = status_of(&lab, "t")["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        detail.contains("no fresh base").then_some(detail)
    });
    assert!(
        failed.contains("only_here") && failed.contains("GRANT DROP"),
        "{failed}"
    );
    run(&mut source, "DELETE FROM t WHERE id = 1").await;
    run(&mut source, "UPDATE other SET v = 11").await;
    run(
        &mut target,
        &format!("DROP INDEX only_here ON {database}.t"),
    )
    .await;
    // All that are held, by way of the page: no foreign page can ask.
    assert_eq!(post(&lab, "/api/v1/resync", false).0, 403);
    let (code, answer) = post(&lab, "/api/v1/resync", true);
    assert!(
        code == 200 && answer.contains(&format!("{database}.t")),
        "{answer}"
    );
    wait_until_equal(&lab, &mut migrating, "t");
    run(&mut source, "INSERT INTO t VALUES (6, 60, 'b')").await;
    run(&mut source, "UPDATE t SET v = 7 WHERE id > 3").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    let letters = format!("SELECT 1 FROM rowproof.dead_letter WHERE task = '{database}'");
    assert!(texts(&mut target, &letters).await.is_empty());
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_asked_for_again_right_after_it_joined_is_made_again() {
    let (lab, mut migrating) = followed("again").await;
    let mut target = lab.target().await;
    let database = lab.database.clone();
    let joined =
        format!("SELECT 1 FROM rowproof.fresh_base WHERE task = '{database}' AND state = 'joined'");
    for _ in 0..4 {
        let asked = lab.run(&["resync", &format!("{database}.t")]);
        assert_eq!(asked.code, 0, "{}", asked.stderr);
        // The base is over as soon as its join is proven, which may be too soon to be seen.
        let began = Instant::now();
        while texts(&mut target, &joined).await.is_empty() && began.elapsed().as_secs() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // What was asked for last is taken up within half a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    wait_until("no base is left", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        (!is_loading(&lab) && status_of(&lab, "t")["verdict"] == "equal").then_some(())
    });
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

/// Tells whether the status shows fresh bases that are not done, or is of a process that is gone.
fn is_loading(lab: &Lab) -> bool {
    let status = lab.run(&["status", "--json"]).json();
    let bases = status["fresh_bases"].as_array();
    let live = status["live"] == true && status["phase"] == "follow";
    !live || bases.is_some_and(|of| !of.is_empty())
}

fn post(lab: &Lab, path: &str, own: bool) -> (u32, String) {
    let url = format!("http://127.0.0.1:{}{path}", lab.web_port);
    let mut command = std::process::Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "10",
        "-X",
        "POST",
        "-w",
        "\n%{http_code}",
    ]);
    if own {
        command.args(["-H", "X-Rowproof-Request: test"]);
    }
    let output = command.arg(url).output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a status");
    (code.parse().expect("a number"), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_ddl_stopped_comes_back_with_the_new_definition() {
    let (lab, mut migrating) = followed("redefined").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let database = lab.database.clone();
    run(&mut source, &format!("USE {database}")).await;
    run(&mut source, "ALTER TABLE t ADD COLUMN w INT DEFAULT 9").await;
    run(&mut source, "INSERT INTO t VALUES (4, 40, 'd', 4)").await;
    wait_until("the DDL stops it", PATIENCE, || {
        (status_of(&lab, "t")["reason"] == "ddl").then_some(())
    });
    // rowproof drops nothing unless it may.
    assert_eq!(lab.run(&["resync"]).code, 0);
    wait_until("it may not drop", PATIENCE, || {
        let status = status_of(&lab, "t");
        status["detail"]
            .as_str()
            .unwrap_or_default()
            .contains("GRANT DROP")
            .then_some(())
    });
    let grant = format!("GRANT DROP ON {database}.* TO {}", crate::lab::USER);
    run(&mut target, &grant).await;
    // A live table may be loaded anew, too; while no migration runs, the next one takes it up.
    migrating.kill();
    for table in ["t", "other"] {
        let asked = lab.run(&["resync", &format!("{database}.{table}")]);
        assert_eq!(asked.code, 0, "{}", asked.stderr);
    }
    let mut migrating = lab.start_migrate();
    run(&mut source, "INSERT INTO t VALUES (5, 50, 'e', 5)").await;
    run(&mut source, "UPDATE other SET v = 5").await;
    wait_until_equal(&lab, &mut migrating, "t");
    wait_until_equal(&lab, &mut migrating, "other");
    run(&mut source, "UPDATE t SET w = 10 WHERE id < 3").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

/// Returns the seed of the moments; another one by ROWPROOF_TEST_SEED.
fn seed() -> u64 {
    let given = std::env::var("ROWPROOF_TEST_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_kills_at_random_moments_of_a_fresh_base_lose_nothing() {
    let seed = seed();
    eprintln!("seed {seed}; set ROWPROOF_TEST_SEED to repeat it");
    let mut random = fastrand::Rng::with_seed(seed);
    let (lab, mut migrating) = followed("base_kills").await;
    let mut source = lab.source().await;
    let database = lab.database.clone();
    run(&mut source, &format!("USE {database}")).await;
    for thousand in 1..=12 {
        let rows: Vec<String> = (0..1_000)
            .map(|row| format!("({}, {row}, 'n')", thousand * 1_000 + row))
            .collect();
        for table in ["t", "other"] {
            let sql = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
            run(&mut source, &sql).await;
        }
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let (stopped, mut writer) = (stop.clone(), lab.source().await);
    run(&mut writer, &format!("USE {database}")).await;
    let writing = tokio::spawn(async move {
        let mut round = 0;
        while !stopped.is_cancelled() {
            round += 1;
            let id = 1_000 + (round * 37) % 12_000;
            for sql in [
                format!("UPDATE t SET v = {round} WHERE id BETWEEN {id} AND {id} + 3"),
                format!("DELETE FROM t WHERE id = {id} + 5"),
                format!("INSERT INTO t VALUES ({}, 1, 'new')", 100_000 + round),
                format!("UPDATE other SET v = {round} WHERE id = {id}"),
            ] {
                run(&mut writer, &sql).await;
            }
        }
    });
    for kill in 0..6 {
        let asked = lab.run(&["resync", &format!("{database}.t")]);
        assert_eq!(asked.code, 0, "{}", asked.stderr);
        tokio::time::sleep(Duration::from_millis(random.u64(200..5_000))).await;
        assert_eq!(
            migrating.ended(),
            None,
            "before kill {kill}: {}",
            migrating.log()
        );
        migrating.kill();
        migrating = lab.start_migrate();
    }
    wait_until("no base is left", PATIENCE * 2, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        (!is_loading(&lab) && status_of(&lab, "t")["verdict"] == "equal").then_some(())
    });
    // Still under live writes, and then at rest.
    lab.assert_check_equal();
    stop.cancel();
    writing.await.expect("the writer ends");
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
