//! A topic that is no longer the one that was read: other partitions, deleted, made anew. Each is
//! noticed while rowproof follows and when it is started again, and nothing is applied on a guess.

use crate::kafka::{add_partitions, create_topic, delete_topic, ends};
use crate::lab::{Lab, Migrating, newest_fence, run, table_that_is_followed, wait_until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Begins to follow a small table; the feed has sent some records when this returns.
async fn followed(name: &str) -> (Lab, Migrating) {
    let (lab, migrating) = table_that_is_followed(name).await;
    let sql = format!("INSERT INTO {}.t VALUES (1), (2), (3)", lab.database);
    run(&mut lab.source().await, &sql).await;
    lab.assert_check_equal();
    (lab, migrating)
}

fn remove_feed(lab: &Lab) {
    lab.feed(&["remove", "--topic", &lab.database]);
}

/// Asserts that it ends with exit code 2 and these words, and does so again when it is started again.
fn assert_ends(lab: &Lab, migrating: &mut Migrating, now: &str, again: &str) {
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    assert!(log.contains(now), "{log}");
    assert!(log.contains("what to do: "), "{log}");
    assert_ends_at_once(lab, again);
}

fn assert_ends_at_once(lab: &Lab, words: &str) {
    let started = lab.run(&["migrate"]);
    assert_eq!(started.code, 2, "{}", started.stderr);
    assert!(started.stderr.contains(words), "{}", started.stderr);
    assert!(started.stderr.contains("new name") || started.stderr.contains("new task name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_end_it_with_a_reason() {
    let (lab, mut migrating) = followed("repartitioned").await;
    add_partitions(&lab, 6).await;
    let words = "has 6 partitions now and had 4";
    assert_ends(&lab, &mut migrating, words, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_it_is_down_are_noticed_at_the_start() {
    let (lab, mut migrating) = followed("repartitioneddown").await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    add_partitions(&lab, 6).await;
    assert_ends_at_once(&lab, "has 6 partitions now and had 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_ends_it_with_a_reason() {
    let (lab, mut migrating) = followed("deleted").await;
    remove_feed(&lab);
    delete_topic(&lab).await;
    let (now, again) = ("was deleted: what it held", "has no topic");
    assert_ends(&lab, &mut migrating, now, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_with_fewer_partitions_ends_it_with_a_reason() {
    let (lab, mut migrating) = followed("shrunk").await;
    remove_feed(&lab);
    // Nobody shall see the moment in which there is no topic.
    migrating.freeze();
    delete_topic(&lab).await;
    create_topic(&lab, 2).await;
    migrating.thaw();
    let words = "deleted and made anew";
    assert_ends(&lab, &mut migrating, words, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_and_shorter_ends_it_with_a_reason() {
    let (lab, mut migrating) = followed("shorter").await;
    remove_feed(&lab);
    migrating.freeze();
    delete_topic(&lab).await;
    create_topic(&lab, 4).await;
    migrating.thaw();
    let words = "deleted and made anew";
    assert_ends(&lab, &mut migrating, words, words);
}

/// The new topic holds all offsets that are asked for: offsets alone would say that nothing has happened.
#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_topic_that_was_made_anew_and_is_longer_than_the_old_one_is_not_taken_for_it() {
    let (lab, mut migrating) = followed("longer").await;
    remove_feed(&lab);
    migrating.freeze();
    let (fence, old) = (newest_fence(&lab).await, ends(&lab));
    delete_topic(&lab).await;
    // What the feed would have told while there was none.
    let sql = format!("INSERT INTO {}.t VALUES (4)", lab.database);
    run(&mut lab.source().await, &sql).await;
    lab.create_feed_with(&["--partitions", "4"]);
    wait_until("the new topic is longer", PATIENCE * 4, || {
        let is_longer = ends(&lab)
            .iter()
            .zip(&old)
            .all(|(new, old)| *new > old + 10);
        is_longer.then_some(())
    });
    migrating.thaw();
    let words = "deleted and made anew";
    assert_ends(&lab, &mut migrating, words, words);
    // What the old topic had told before may have been applied, and nothing of the new one.
    let rows = crate::lab::texts(
        &mut lab.target().await,
        &format!("SELECT id FROM {}.t", lab.database),
    )
    .await;
    assert_eq!(rows.len(), 3);
    assert!(newest_fence(&lab).await >= fence);
}
