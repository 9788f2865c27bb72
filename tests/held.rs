//! A table that cannot go on is held, alone.

use crate::lab::{Lab, Migrating, run, texts, wait_until};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
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

/// Sends a record to a partition of the lab's topic, as nothing but damage would.
fn send(lab: &Lab, key: &str, value: &[u8]) {
    let producer: BaseProducer = ClientConfig::new()
        .set(
            "bootstrap.servers",
            format!("127.0.0.1:{}", lab.kafka_port()),
        )
        .create()
        .expect("a producer");
    let mut framed = 1_u64.to_be_bytes().to_vec();
    framed.extend((key.len() as u64).to_be_bytes());
    framed.extend(key.as_bytes());
    let record = BaseRecord::to(&lab.database)
        .partition(1)
        .key(&framed)
        .payload(value);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("sent");
    producer.flush(PATIENCE).expect("acknowledged");
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
