//! Every dialect of the feed ends in rows that are equal, or in a refusal that says what to do.

use crate::lab::{Lab, Migrating, repository, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use sqlx::mysql::MySqlConnection;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// The options by which rows beyond some 3,000 bytes are large messages.
const SMALL_MESSAGES: &str = "max-message-bytes=3000";

/// A lab whose feed has these options.
async fn lab_with_feed(name: &str, options: &[&str]) -> (Lab, MySqlConnection) {
    let lab = Lab::new(name).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    for statement in [
        "CREATE TABLE notes (id BIGINT PRIMARY KEY, name VARCHAR(40), body TEXT, at TIMESTAMP(3) NULL)",
        // Its key is no key of the storage, so that a change of it is an update to TiDB.
        "CREATE TABLE codes (code VARCHAR(40) COLLATE utf8mb4_bin, part VARBINARY(16), body BLOB, \
         PRIMARY KEY (code, part) NONCLUSTERED)",
        "INSERT INTO notes VALUES (1, 'one', REPEAT('1', 9000), '2024-01-01 00:00:00.5'), (2, 'two', NULL, NULL), \
         (3, 'three', 'small', '2024-07-01 12:00:00'), (4, 'four', REPEAT('4', 9000), NULL)",
        "INSERT INTO codes VALUES ('a''b', x'00ff', REPEAT('a', 9000)), ('moves', x'27', REPEAT('m', 9000)), \
         ('goes', '', 'small')",
    ] {
        run(&mut source, statement).await;
    }
    let more: Vec<&str> = options.iter().flat_map(|of| ["--option", of]).collect();
    lab.create_feed_with(&more);
    (lab, source)
}

/// Changes small rows and large ones in every way but of their keys.
async fn change(source: &mut MySqlConnection) {
    for statement in [
        "UPDATE notes SET name = 'ONE' WHERE id = 1",
        "UPDATE notes SET body = REPEAT('2', 9000), at = '2024-07-01 00:00:00' WHERE id = 2",
        "UPDATE notes SET body = REPEAT('3', 9000) WHERE id = 3",
        "DELETE FROM notes WHERE id = 4",
        "INSERT INTO notes VALUES (5, 'five', REPEAT('中', 3000), '2023-12-31 23:59:59.999')",
        "INSERT INTO notes VALUES (6, 'six', REPEAT('6', 9000), NULL)",
        "DELETE FROM notes WHERE id = 6",
        "UPDATE codes SET body = REPEAT('b', 9000) WHERE code = 'a''b'",
        "DELETE FROM codes WHERE code = 'goes'",
        "INSERT INTO codes VALUES ('new', x'5c', REPEAT(x'ff00', 4000))",
        // A short one that follows on a large one, and the other way round, in one transaction.
        "BEGIN",
        "UPDATE notes SET body = 'short' WHERE id = 3",
        "UPDATE notes SET body = REPEAT('5', 9000), name = NULL WHERE id = 5",
        "COMMIT",
    ] {
        run(source, statement).await;
    }
}

/// Changes keys.
async fn change_keys(source: &mut MySqlConnection) {
    run(
        source,
        "UPDATE codes SET code = 'moved' WHERE code = 'moves'",
    )
    .await;
    run(source, "UPDATE notes SET id = 20 WHERE id = 2").await;
}

fn follow(lab: &Lab) -> Migrating {
    let mut migrating = lab.start_migrate();
    wait_until("it follows", PATIENCE, || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        migrating.log().contains("follow").then_some(())
    });
    migrating
}

/// Asserts that both sides hold the same, as rowproof and plain SQL see it, and that nothing that the
/// batches did was ever different or unproven.
async fn assert_equal(lab: &Lab, mut migrating: Migrating) {
    lab.assert_check_equal();
    assert_same_rows(lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    let status = lab.run(&["status", "--json"]).stdout;
    let sound = !status.contains("\"different\"") && !status.contains("\"unproven\"");
    assert!(sound, "{status}");
}

async fn ends_equal(name: &str, options: &[&str]) {
    let (lab, mut source) = lab_with_feed(name, options).await;
    let migrating = follow(&lab);
    change(&mut source).await;
    change_keys(&mut source).await;
    assert_equal(&lab, migrating).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_snappy_and_lz4_are_followed() {
    ends_equal("snappy", &["large-message-handle-compression=snappy"]).await;
    ends_equal("lz4", &["large-message-handle-compression=lz4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_which_the_feed_has_the_handle_key_only_are_read_from_the_source() {
    let handle_key_only = "large-message-handle-option=handle-key-only";
    ends_equal("keys", &[handle_key_only, SMALL_MESSAGES]).await;
    let options = [
        handle_key_only,
        SMALL_MESSAGES,
        "output-raw-change-event=true",
        "only-output-updated-columns=true",
    ];
    ends_equal("raw_keys", &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_feed_leaves_out_do_not_matter() {
    let options = [
        "only-output-updated-columns=true",
        "output-raw-change-event=true",
        "delete-only-output-handle-key-columns=true",
    ];
    ends_equal("columns", &options).await;
    let options = [
        "output-old-value=false",
        "delete-only-output-handle-key-columns=true",
        "large-message-handle-compression=lz4",
    ];
    ends_equal("old_values", &options).await;
}

/// Adds lines to the `[feed]` section of the task file.
fn write_task(lab: &Lab, lines: &str) {
    let text = lab.task_text();
    lab.write_task(&text.replace("[tables]", &format!("{lines}\n[tables]")));
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_messages_come_from_a_directory_and_from_the_source_when_they_are_gone() {
    let claims = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", claims.path().display());
    let uri = format!("claim-check-storage-uri={url}");
    let options = [
        "large-message-handle-option=claim-check",
        SMALL_MESSAGES,
        &uri,
    ];
    let (lab, mut source) = lab_with_feed("claims", &options).await;
    write_task(&lab, &format!("[feed.claim_check]\nurl = \"{url}\""));
    let mut migrating = follow(&lab);
    change(&mut source).await;
    lab.assert_check_equal();
    assert!(!migrating.log().contains("is gone"), "{}", migrating.log());
    migrating.kill();
    change_keys(&mut source).await;
    run(&mut source, "UPDATE notes SET body = REPEAT('7', 9000)").await;
    wait_for_feed(&lab, &mut source).await;
    let files = std::fs::read_dir(claims.path()).expect("the directory");
    let mut gone = 0;
    for file in files {
        std::fs::remove_file(file.expect("a file").path()).expect("the file");
        gone += 1;
    }
    assert!(gone > 5, "the feed has large messages");
    let migrating = follow(&lab);
    lab.assert_check_equal();
    assert!(migrating.log().contains("is gone"), "{}", migrating.log());
    assert_equal(&lab, migrating).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_messages_need_no_storage_and_a_damaged_one_is_said() {
    let claims = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", claims.path().display());
    let uri = format!("claim-check-storage-uri={url}");
    let options = [
        "large-message-handle-option=claim-check",
        SMALL_MESSAGES,
        &uri,
    ];
    let (lab, mut source) = lab_with_feed("unclaimed", &options).await;
    let mut migrating = follow(&lab);
    change(&mut source).await;
    lab.assert_check_equal();
    migrating.kill();
    write_task(&lab, &format!("[feed.claim_check]\nurl = \"{url}\""));
    run(&mut source, "UPDATE notes SET body = REPEAT('8', 9000)").await;
    wait_for_feed(&lab, &mut source).await;
    for file in std::fs::read_dir(claims.path()).expect("the directory") {
        std::fs::write(file.expect("a file").path(), "damaged").expect("the file");
    }
    let mut migrating = lab.start_migrate();
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(log.contains("the file holds no message of TiCDC"), "{log}");
    write_task(&lab, "");
    let migrating = follow(&lab);
    assert_equal(&lab, migrating).await;
}

/// Waits until the lab's feed has sent everything that was committed.
async fn wait_for_feed(lab: &Lab, source: &mut MySqlConnection) {
    run(source, "BEGIN").await;
    let now = texts(source, "SELECT @@tidb_current_ts").await;
    run(source, "COMMIT").await;
    let now: u64 = now[0][0]
        .as_ref()
        .and_then(|ts| ts.parse().ok())
        .expect("a timestamp");
    wait_until("the feed is sent", PATIENCE, || {
        (lab.feed_checkpoint() >= now).then_some(())
    });
}

/// An S3 stand-in that ends with the test.
struct ObjectStore {
    child: Child,
    port: u16,
}

impl ObjectStore {
    fn start() -> ObjectStore {
        let port = crate::lab::free_port();
        let child = Command::new(repository().join("fixtures/lab/s3"))
            .args(["--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fixtures/lab/s3");
        let store = ObjectStore { child, port };
        wait_until("the store answers", Duration::from_secs(180), || {
            store.request("PUT", "/large-messages")
        });
        store
    }

    /// Sends a request without a body and returns the answer, if there is one.
    fn request(&self, method: &str, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let host = format!("127.0.0.1:{}", self.port);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains(" 200 ").then_some(answer)
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_messages_come_from_an_s3_store() {
    let store = ObjectStore::start();
    let endpoint = format!("http://127.0.0.1:{}", store.port);
    let uri = format!(
        "claim-check-storage-uri=s3://large-messages/of/ticdc?endpoint={endpoint}&access-key=any\
         &secret-access-key=any&force-path-style=true&provider=minio"
    );
    let options = [
        "large-message-handle-option=claim-check",
        "large-message-handle-compression=snappy",
        SMALL_MESSAGES,
        &uri,
    ];
    let (lab, mut source) = lab_with_feed("s3", &options).await;
    let lines =
        "[feed.claim_check]\nurl = \"s3://large-messages/of/ticdc\"\nregion = \"us-east-1\"";
    write_task(&lab, &format!("{lines}\nendpoint = \"{endpoint}\""));
    let migrating = follow(&lab);
    change(&mut source).await;
    change_keys(&mut source).await;
    // What repeats itself is small when it is compressed.
    let random: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(9000)
        .collect();
    run(
        &mut source,
        &format!("UPDATE notes SET body = '{random}' WHERE id = 1"),
    )
    .await;
    lab.assert_check_equal();
    let listing = store.request("GET", "/large-messages?list-type=2&prefix=of/ticdc/");
    assert!(
        listing.is_some_and(|listing| listing.contains(".json")),
        "large messages"
    );
    assert!(!migrating.log().contains("is gone"), "{}", migrating.log());
    assert_equal(&lab, migrating).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_another_time_zone_are_converted_and_those_that_came_twice_are_read() {
    let (lab, mut source) = lab_with_feed("berlin", &["tz=Europe/Berlin"]).await;
    write_task(&lab, "time_zone = \"Europe/Berlin\"");
    let migrating = follow(&lab);
    change(&mut source).await;
    change_keys(&mut source).await;
    // 02:30 came twice in Berlin on this day, an hour apart.
    for statement in [
        "INSERT INTO notes VALUES (30, 'summer', 'x', '2024-10-27 00:30:00'), (31, 'winter', 'y', '2024-10-27 01:30:00')",
        "UPDATE notes SET at = '2024-10-27 01:30:00.125' WHERE id = 1",
        "UPDATE notes SET at = '2024-03-31 01:00:00' WHERE id = 3",
    ] {
        run(&mut source, statement).await;
    }
    assert_equal(&lab, migrating).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_time_zone_that_is_not_that_of_the_feed_is_noticed_before_anything_is_written() {
    let (lab, mut source) = lab_with_feed("other_zone", &["tz=Asia/Shanghai"]).await;
    let mut migrating = follow(&lab);
    change(&mut source).await;
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(log.contains("480 minutes off"), "{log}");
    assert!(log.contains("set [feed] time_zone"), "{log}");
    write_task(&lab, "time_zone = \"+08:00\"");
    let migrating = follow(&lab);
    assert_equal(&lab, migrating).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_time_zone_that_agrees_in_winter_only_is_found_by_the_proof() {
    let (lab, mut source) = lab_with_feed("london", &["tz=Europe/London"]).await;
    let mut migrating = follow(&lab);
    run(&mut source, "UPDATE notes SET at = '2024-01-02 00:00:00'").await;
    lab.assert_check_equal();
    run(
        &mut source,
        "UPDATE notes SET at = '2024-07-02 00:00:00' WHERE id < 3",
    )
    .await;
    wait_until("the proof finds it", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).stdout;
        status.contains("\"different\"").then_some(())
    });
    assert_eq!(lab.run(&["check"]).code, 1);
    assert_eq!(migrating.stop(), 1, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_change_of_a_key_that_the_feed_hides_is_refused() {
    let options = ["output-raw-change-event=true", "output-old-value=false"];
    let (lab, mut source) = lab_with_feed("hidden", &options).await;
    let mut migrating = follow(&lab);
    // Nothing of this changes a key that TiDB itself does not delete.
    change(&mut source).await;
    run(&mut source, "UPDATE notes SET id = 20 WHERE id = 2").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    run(
        &mut source,
        "UPDATE codes SET code = 'moved' WHERE code = 'moves'",
    )
    .await;
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(
        log.contains("does not say that the old one is gone"),
        "{log}"
    );
    assert!(!log.contains("moves"), "INV-7: {log}");
    let mut target = lab.target().await;
    let sql = format!(
        "SELECT COUNT(*) FROM {}.codes WHERE code = 'moved'",
        lab.database
    );
    assert_eq!(texts(&mut target, &sql).await[0][0].as_deref(), Some("0"));
}
