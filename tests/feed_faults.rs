//! What a changefeed may legally do makes no row differ, and one that stands still is named.

use crate::lab::{Lab, Migrating, Writers, newest_fence, run, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Begins a migration of a small shop with live writers.
async fn shop_that_is_followed(lab: &Lab) -> (Migrating, Writers) {
    lab.create_shop(4_000, 5);
    lab.create_feed();
    let writers = lab.start_writers(4, 300, &[]);
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    (migrating, writers)
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_4_a_feed_that_starts_again_from_older_checkpoints_changes_nothing() {
    let lab = Lab::new("replay").await;
    let (mut migrating, mut writers) = shop_that_is_followed(&lab).await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Twice in a row sends `B A B A B`; the longest goes back behind the start of the load.
        let seconds = ["3", "3", "8", "60", "1", "20"][round];
        lab.feed(&["replay", "--topic", &lab.database, "--seconds", seconds]);
        if round == 3 {
            migrating.kill();
            migrating = lab.start_migrate();
        }
    }
    lab.assert_check_equal();
    writers.end();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_no_fence_is_made_beyond_a_partition_whose_watermark_stalls() {
    let lab = Lab::new("stall").await;
    let (mut migrating, mut writers) = shop_that_is_followed(&lab).await;
    lab.feed(&[
        "stall",
        "--topic",
        &lab.database,
        "--partition",
        "2",
        "--seconds",
        "30",
    ]);
    // What the partition had said before is applied meanwhile, also on a busy machine.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let stalled = newest_fence(&lab).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(newest_fence(&lab).await, stalled);
    let named = format!(
        "topic {} partition 2, where none has come since 2",
        lab.database
    );
    wait_until("the partition is named", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        let waiting = status["waiting_for"].as_str().unwrap_or_default();
        waiting.contains(&named).then_some(())
    });
    let end_of_wait = Instant::now() + PATIENCE;
    while newest_fence(&lab).await == stalled {
        assert!(Instant::now() < end_of_wait, "no fence after the stall");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    writers.end();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changefeed_that_sends_nothing_any_more_is_what_it_waits_for() {
    let lab = Lab::new("silence").await;
    let table = format!("{}.t", lab.database);
    run(
        &mut lab.source().await,
        &format!("CREATE TABLE {table} (id INT PRIMARY KEY)"),
    )
    .await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    lab.feed(&["remove", "--topic", &lab.database]);
    wait_until("the silence is told", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status"]).stdout;
        status.contains("on no partition since 2").then_some(())
    });
    // It ends when it is told to, and says the same when it is started again.
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    let mut migrating = lab.start_migrate();
    wait_until("the silence is told again", PATIENCE, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status"]).stdout;
        status.contains("on no partition since 2").then_some(())
    });
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
