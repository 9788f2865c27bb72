//! Records that Kafka holds no more, or that nobody can see: never passed over in silence.

use crate::kafka::{drop_records, send_and_give_up};
use crate::lab::{Lab, run, table_that_is_followed, wait_until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Has the feed send a change, and Kafka drop it.
async fn lose_a_change(lab: &Lab) {
    let mut source = lab.source().await;
    run(
        &mut source,
        &format!("INSERT INTO {}.t VALUES (1)", lab.database),
    )
    .await;
    let before = lab.feed_checkpoint();
    wait_until("the feed has sent it", PATIENCE, || {
        (lab.feed_checkpoint() > before + (2_000 << 18)).then_some(())
    });
    drop_records(lab).await;
}

fn assert_refuses(lab: &Lab, words: &[&str]) {
    let started = lab.run(&["migrate"]);
    assert_eq!(started.code, 2, "{}", started.stderr);
    for word in words {
        assert!(started.stderr.contains(word), "{}", started.stderr);
    }
}

const LOST: [&str; 4] = [
    "must be read from offset",
    "changes are lost",
    "partition",
    "what to do: ",
];

#[tokio::test(flavor = "multi_thread")]
async fn records_that_kafka_drops_before_they_are_read_end_it_with_the_offsets() {
    let (lab, mut migrating) = table_that_is_followed("dropped_unread").await;
    migrating.freeze();
    lose_a_change(&lab).await;
    migrating.thaw();
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    for word in LOST {
        assert!(log.contains(word), "{log}");
    }
    assert_refuses(&lab, &LOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_kafka_drops_while_it_is_down_are_missed_at_the_start() {
    let (lab, mut migrating) = table_that_is_followed("dropped_down").await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    lose_a_change(&lab).await;
    assert_refuses(&lab, &LOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_do_not_follow_each_other_end_it_with_the_place() {
    let (lab, mut migrating) = table_that_is_followed("gap").await;
    send_and_give_up(&lab, 2);
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let place = format!("topic {} partition 2: offset", lab.database);
    let words = [place.as_str(), "came where", "is next", "what to do: "];
    let log = migrating.log();
    for word in words {
        assert!(log.contains(word), "{log}");
    }
    assert_refuses(&lab, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_do_not_follow_each_other_are_noticed_at_the_start() {
    let (lab, mut migrating) = table_that_is_followed("gap_down").await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    send_and_give_up(&lab, 2);
    let place = format!("topic {} partition 2: offset", lab.database);
    assert_refuses(&lab, &[&place, "came where", "is next", "what to do: "]);
}
