//! The page of a running migration.

use crate::lab::{Lab, run};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_answers_this_machine_only_and_shows_what_differs() {
    let lab = Lab::new("web").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let table = format!("{}.t", lab.database);
    run(
        &mut source,
        &format!("CREATE TABLE {table} (id INT PRIMARY KEY, name VARCHAR(60))"),
    )
    .await;
    run(
        &mut source,
        &format!("INSERT INTO {table} VALUES (1, '<script>alert(1)</script>')"),
    )
    .await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_eq!(get(&lab, "/healthz", None).0, 200);
    let (code, status) = get(&lab, "/api/v1/status", None);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(code, 200);
    assert!(status.to_string().contains("follow"), "{status}");
    run(
        &mut target,
        &format!("UPDATE {table} SET name = 'rogue' WHERE id = 1"),
    )
    .await;
    assert_eq!(lab.run(&["check"]).code, 1);
    let (code, diffs) = get(&lab, "/api/v1/diffs", None);
    assert!(code == 200 && diffs.contains("rogue"), "{diffs}");
    let (code, sql) = get(&lab, "/api/v1/repair.sql", None);
    assert!(code == 200 && sql.contains("UPDATE"), "{sql}");
    let (code, page) = get(&lab, "/", None);
    assert!(code == 200 && page.contains("rogue"), "{page}");
    assert!(!page.contains("<script>alert"), "values are escaped");
    for host in ["evil.example", "evil.example:8080", "192.0.2.1"] {
        let (code, body) = get(&lab, "/api/v1/diffs", Some(host));
        assert!(
            (400..500).contains(&code) && !body.contains("rogue"),
            "{host}: {code} {body}"
        );
    }
}

fn get(lab: &Lab, path: &str, host: Option<&str>) -> (u32, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}"]);
    if let Some(host) = host {
        command.args(["-H", &format!("Host: {host}")]);
    }
    let url = format!("http://127.0.0.1:{}{path}", lab.web_port);
    let output = command.arg(url).output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a status");
    (code.parse().expect("a number"), body.to_owned())
}
