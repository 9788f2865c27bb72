//! What can go wrong with the topic is noticed and said, never guessed over.

use crate::lab::{Lab, Migrating, Writers, run, texts};
use crate::plain_sql::assert_same_rows;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_it_follows_end_it_with_a_reason() {
    let lab = Lab::new("repartitioned").await;
    let mut source = lab.source().await;
    let table = format!("CREATE TABLE {}.t (id INT PRIMARY KEY)", lab.database);
    run(&mut source, &table).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    let brokers = format!("127.0.0.1:{}", lab.kafka_port());
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    let more = NewPartitions::new(&lab.database, 6);
    let done = admin
        .create_partitions([&more], &AdminOptions::new())
        .await
        .expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(migrating.wait(PATIENCE), 2);
    let log = migrating.log();
    assert!(log.contains("has 6 partitions now and had 4"), "{log}");
}

/// Returns the timestamp of the newest fence.
async fn newest_fence(lab: &Lab) -> u64 {
    let mut target = lab.target().await;
    let sql = format!(
        "SELECT w FROM rowproof.fence WHERE task = '{}'",
        lab.database
    );
    let rows = texts(&mut target, &sql).await;
    let cell = rows.into_iter().flatten().flatten().next();
    cell.and_then(|w| w.parse().ok()).expect("a fence")
}

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
        "20",
    ]);
    // What the partition had said before is applied meanwhile, also on a busy machine.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let stalled = newest_fence(&lab).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(newest_fence(&lab).await, stalled);
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
