//! What can go wrong with the topic is noticed and said, never guessed over.

use crate::lab::{Lab, run, wait_until};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_it_follows_end_it_with_a_reason() {
    let lab = Lab::new("repartitioned").await;
    let mut source = lab.source().await;
    let table = format!("CREATE TABLE {}.t (id INT PRIMARY KEY)", lab.database);
    run(&mut source, &table).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    wait_until("it follows", PATIENCE, || {
        migrating.log().contains("follow").then_some(())
    });
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
