//! How much is asked of the two databases: limits, backing off, and a proof that falls behind.

use crate::lab::{Lab, Migrating, run, texts, wait_until};
use crate::proxy::Proxy;
use sqlx::mysql::MySqlConnection;
use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Makes a table of a thousand small rows and doubles it.
async fn fill(source: &mut MySqlConnection, table: &str, doublings: u32) {
    let create = format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, n INT NOT NULL)");
    run(source, &create).await;
    let rows: Vec<String> = (0..1_000).map(|id| format!("({id}, 0)")).collect();
    run(
        source,
        &format!("INSERT INTO {table} VALUES {}", rows.join(",")),
    )
    .await;
    for doubling in 0..doublings {
        let more = 1_000 << doubling;
        let double = format!("INSERT INTO {table} SELECT id + {more}, n FROM {table}");
        run(source, &double).await;
    }
}

fn status(lab: &Lab) -> serde_json::Value {
    lab.run(&["status", "--json"]).json()
}

fn throttled(status: &serde_json::Value) -> Vec<String> {
    let reasons = status["throttled"].as_array().expect("reasons").iter();
    let text = |reason: &serde_json::Value| reason.as_str().expect("a text").to_owned();
    reasons.map(text).collect()
}

/// Waits until the status fulfils something, and returns it.
fn wait_for(
    lab: &Lab,
    migrating: &mut Migrating,
    what: &str,
    fulfils: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    wait_until(what, PATIENCE, || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        let status = status(lab);
        fulfils(&status).then_some(status)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_the_load_and_its_change_counts_at_once_and_after_a_restart() {
    let lab = Lab::new("limits").await;
    let mut source = lab.source().await;
    fill(&mut source, &format!("{}.t", lab.database), 5).await;
    lab.create_feed();
    let limits = "[limits]\nsource = { rows_per_second = 1000 }\ntarget = { connections = 1 }\n";
    lab.write_task(&format!("{}\n{limits}", lab.task_text()));
    let began = Instant::now();
    let mut migrating = lab.start_migrate();
    // 32,000 rows would take half a minute.
    let held = wait_for(&lab, &mut migrating, "the limit shows", |status| {
        let reason = "the source is held to its limit of 1,000 rows/s".to_owned();
        throttled(status).contains(&reason) && status["load"]["rows"].as_u64() > Some(3_000)
    });
    let rows = held["load"]["rows"].as_f64().expect("rows");
    let rate = rows / began.elapsed().as_secs_f64();
    assert!(rate < 1_500.0, "{rate} rows/s");
    assert!(held["target"]["connections"].as_u64() <= Some(1), "{held}");
    let told = lab.run(&["status"]).stdout;
    assert!(told.contains("held to its limit of 1,000 rows/s"), "{told}");
    // A change through the API counts within a second or two.
    let changed = post(&lab, "side=source&rows_per_second=none");
    assert_eq!(
        changed["source"]["rows_per_second"],
        serde_json::Value::Null
    );
    migrating.wait_until_it_follows();
    wait_for(&lab, &mut migrating, "nothing is held", |status| {
        throttled(status).is_empty()
    });
    lab.assert_check_equal();
    // And after a restart, until the task file counts again.
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    let limits = lab.run(&["limits", "--json"]).json();
    assert_eq!(limits["source"]["changed"][0], "rows_per_second");
    assert_eq!(limits["source"]["rows_per_second"], serde_json::Value::Null);
    let limits = lab.run(&["limits", "source", "rows_per_second=file", "--json"]);
    assert_eq!(limits.json()["source"]["rows_per_second"], 1_000);
    // A check is held by the same limits.
    let mut migrating = lab.start_migrate();
    let began = Instant::now();
    lab.run(&["limits", "source", "rows_per_second=4000"]);
    lab.assert_check_equal();
    let took = began.elapsed();
    assert!(took > Duration::from_secs(7), "32,000 rows in {took:?}");
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

/// Changes limits through the web.
fn post(lab: &Lab, query: &str) -> serde_json::Value {
    let url = format!("http://127.0.0.1:{}/api/v1/limits?{query}", lab.web_port);
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", "-X", "POST"])
        .args(["-H", "X-Rowproof-Request: 1", &url])
        .output()
        .expect("curl");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_proof_that_falls_behind_proves_the_newest_and_drops_nothing() {
    let lab = Lab::new("behind").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let table = format!("{}.t", lab.database);
    fill(&mut source, &table, 0).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    // The proof of six hundred keys takes six seconds now.
    lab.run(&["limits", "source", "rows_per_second=100"]);
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..10 {
        let change = format!("UPDATE {table} SET n = n + 1 WHERE id < 600");
        run(&mut source, &change).await;
        std::thread::sleep(Duration::from_millis(300));
    }
    run(
        &mut source,
        &format!("UPDATE {table} SET n = 7 WHERE id = 900"),
    )
    .await;
    let behind = wait_for(&lab, &mut migrating, "batches wait", |status| {
        status["to_prove"]["batches"].as_u64() > Some(3)
            && status["to_prove"]["keys"].as_u64() > Some(600)
    });
    assert!(behind["lag_ms"]["proven"].as_u64() > behind["lag_ms"]["applied"].as_u64());
    // Applied, not proven yet, and then changed by somebody else: a proof at its own fence could not
    // see that.
    let written = format!("SELECT n FROM {table} WHERE id = 900");
    let began = Instant::now();
    while texts(&mut target, &written).await[0][0].as_deref() != Some("7") {
        assert!(began.elapsed() < PATIENCE, "the last change is applied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run(
        &mut target,
        &format!("UPDATE {table} SET n = 8 WHERE id = 900"),
    )
    .await;
    run(
        &mut source,
        &format!("UPDATE {table} SET n = 1 WHERE id = 901"),
    )
    .await;
    wait_for(&lab, &mut migrating, "the corruption is found", |status| {
        status["differing_rows"] == 1
    });
    lab.run(&["limits", "source", "rows_per_second=none"]);
    wait_for(&lab, &mut migrating, "the proof has caught up", |status| {
        status["lag_ms"]["proven"].as_u64() < Some(5_000)
    });
    let diff = lab.run(&["diff", "--json"]).json();
    assert_eq!(diff["differences"][0]["key"], "id = 900", "{diff}");
    let proven = wait_for(&lab, &mut migrating, "few wait", |status| {
        status["to_prove"]["batches"].as_u64() < Some(5)
    });
    assert_eq!(proven["changes"], 6_002, "{proven}");
    assert_eq!(lab.run(&["repair", "--apply"]).code, 0);
    lab.assert_check_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_slows_down_is_asked_for_less_until_it_is_itself_again() {
    let lab = Lab::new("slow").await;
    let mut source = lab.source().await;
    fill(&mut source, &format!("{}.t", lab.database), 7).await;
    lab.create_feed();
    let proxy = Proxy::before(lab.target_port()).await;
    let port = format!("port = {}", lab.target_port());
    let through = format!("port = {}", proxy.port);
    let task = lab.task_text().replace(&port, &through);
    // So that the load takes a while.
    let limits = "[limits]\ntarget = { rows_per_second = 3000 }\n";
    lab.write_task(&format!("{task}\n{limits}"));
    let mut migrating = lab.start_migrate();
    wait_for(&lab, &mut migrating, "some rows are loaded", |status| {
        status["load"]["rows"].as_u64() > Some(16_000)
    });
    let is_slow = |status: &serde_json::Value| {
        let mut reasons = throttled(status).into_iter();
        reasons.find(|reason| reason.starts_with("the target answers "))
    };
    assert_eq!(is_slow(&status(&lab)), None, "nothing is slow yet");
    proxy.delay(700);
    let slow = wait_for(&lab, &mut migrating, "it backs off", |status| {
        is_slow(status).is_some()
    });
    let reason = is_slow(&slow).expect("a reason");
    assert!(reason.contains("x slower than it did: "), "{reason}");
    assert!(reason.ends_with(" of 4 connections at work"), "{reason}");
    let connections = slow["target"]["slow"]["connections"].as_u64();
    assert!((1..=2).contains(&connections.expect("a number")), "{slow}");
    proxy.delay(0);
    wait_for(&lab, &mut migrating, "it asks for all again", |status| {
        is_slow(status).is_none()
    });
    lab.run(&["limits", "target", "rows_per_second=none"]);
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
