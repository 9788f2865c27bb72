//! No row value and no secret in a log, an error or a metric.

use crate::lab::{Lab, PASSWORD, run};
use std::process::Command;
use std::time::Duration;

const CANARY: &str = "canary-row-value-8472";

#[tokio::test(flavor = "multi_thread")]
async fn inv_7_canary_values_stay_out_of_logs_errors_and_metrics() {
    let lab = Lab::new("secrecy").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let table = format!("{}.t", lab.database);
    run(
        &mut source,
        &format!("CREATE TABLE {table} (id INT PRIMARY KEY, name VARCHAR(60) UNIQUE)"),
    )
    .await;
    run(
        &mut source,
        &format!("INSERT INTO {table} VALUES (1, '{CANARY}')"),
    )
    .await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    let metrics = http(&lab, "/metrics");
    assert!(metrics.contains("rowproof_"), "{metrics}");
    assert!(!metrics.contains(CANARY) && !metrics.contains(PASSWORD));
    // A rogue row that makes the next batch fail with "Duplicate entry 'canary...'".
    run(
        &mut target,
        &format!("INSERT INTO {table} VALUES (9, '{CANARY}-2')"),
    )
    .await;
    run(
        &mut source,
        &format!("INSERT INTO {table} VALUES (2, '{CANARY}-2')"),
    )
    .await;
    let code = migrating.wait(Duration::from_secs(60));
    let log = migrating.log();
    assert_eq!(code, 2, "{log}");
    assert!(
        log.contains("1062") && log.contains("applying a batch"),
        "{log}"
    );
    assert!(!log.contains(CANARY) && !log.contains(PASSWORD), "{log}");
}

fn http(lab: &Lab, path: &str) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10"])
        .arg(format!("http://127.0.0.1:{}{path}", lab.web_port))
        .output()
        .expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
