//! One writer at a time, and no foreign state directory.

use crate::lab::{Lab, run, texts, wait_until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

async fn following(lab: &Lab) -> crate::lab::Migrating {
    let mut source = lab.source().await;
    run(
        &mut source,
        &format!("CREATE TABLE {}.t (id INT PRIMARY KEY)", lab.database),
    )
    .await;
    run(
        &mut source,
        &format!("INSERT INTO {}.t VALUES (1)", lab.database),
    )
    .await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    migrating
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_9_a_second_instance_is_refused() {
    let lab = Lab::new("second").await;
    let mut migrating = following(&lab).await;
    let second = lab.run(&["migrate"]);
    assert_eq!(second.code, 70, "{}", second.stderr);
    assert!(
        second.stderr.contains("another rowproof process"),
        "{}",
        second.stderr
    );
    assert!(migrating.ended().is_none(), "the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_9_a_holder_whose_slot_was_taken_over_writes_nothing_more() {
    let lab = Lab::new("takeover").await;
    let mut migrating = following(&lab).await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let task = &lab.database;
    run(
        &mut target,
        &format!("UPDATE rowproof.lease SET epoch = epoch + 1 WHERE task = '{task}'"),
    )
    .await;
    run(
        &mut target,
        &format!("UPDATE rowproof.slot SET epoch = epoch + 1 WHERE task = '{task}'"),
    )
    .await;
    run(&mut source, &format!("INSERT INTO {task}.t VALUES (2)")).await;
    assert_eq!(migrating.wait(PATIENCE), 70, "{}", migrating.log());
    assert!(migrating.log().contains("INV-9"), "{}", migrating.log());
    let rows = texts(&mut target, &format!("SELECT id FROM {task}.t")).await;
    assert_eq!(rows.len(), 1, "nothing was written after the take-over");
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_9_a_start_waits_for_what_an_earlier_session_has_under_way_and_says_so() {
    let lab = Lab::new("underway").await;
    let mut migrating = following(&lab).await;
    migrating.kill();
    let mut target = lab.target().await;
    let slot = format!("task = '{}' AND slot = 0", lab.database);
    run(&mut target, "BEGIN").await;
    let held = format!("UPDATE rowproof.slot SET writes = writes + 1 WHERE {slot}");
    run(&mut target, &held).await;
    let mut migrating = lab.start_migrate();
    wait_until("it says what it waits for", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status", "--json"]).json();
        let reason = status["waiting_for"].as_str()?.to_owned();
        reason.contains("a row of rowproof.slot").then_some(())
    });
    run(&mut target, "ROLLBACK").await;
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_lost_state_directory_is_noticed() {
    let lab = Lab::new("lost").await;
    let mut migrating = following(&lab).await;
    migrating.stop();
    std::fs::remove_dir_all(lab.dir.join("state")).expect("the state directory");
    let again = lab.run(&["migrate"]);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(
        again.stderr.contains("another state directory"),
        "{}",
        again.stderr
    );
}
