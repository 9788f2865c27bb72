//! No row value and no secret in a log, an error or a metric.

use crate::lab::{Lab, PASSWORD, run, texts, wait_until};
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
    // A rogue row for which the next row of the table is refused with "Duplicate entry 'canary...'".
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
    let status = wait_until("the table is held", Duration::from_secs(60), || {
        let status = lab.run(&["status", "--json"]).stdout;
        status.contains("1062").then_some(status)
    });
    assert!(!status.contains(CANARY), "{status}");
    let letters = "SELECT reason FROM rowproof.dead_letter WHERE task = ";
    let letters = texts(&mut target, &format!("{letters}'{}'", lab.database)).await;
    assert_eq!(letters.len(), 1);
    assert!(!format!("{letters:?}").contains(CANARY), "{letters:?}");
    assert_eq!(migrating.stop(), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(log.contains("1062") && log.contains("held"), "{log}");
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
