//! Kafka as its administrator and as strangers use it: what a feed's topic may suffer.

use crate::lab::{Lab, wait_until};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

fn config(lab: &Lab) -> ClientConfig {
    let mut config = ClientConfig::new();
    let brokers = format!("127.0.0.1:{}", lab.kafka_port());
    config.set("bootstrap.servers", brokers);
    config
}

fn admin(lab: &Lab) -> AdminClient<DefaultClientContext> {
    config(lab).create().expect("an admin client")
}

fn asking(lab: &Lab) -> BaseConsumer {
    config(lab)
        .set("group.id", "strangers")
        .create()
        .expect("a client")
}

/// Returns how many partitions the test's topic has; 0 if there is none.
fn partitions(lab: &Lab) -> usize {
    let metadata = asking(lab).fetch_metadata(Some(&lab.database), PATIENCE);
    let metadata = metadata.expect("an answer");
    let topic = metadata
        .topics()
        .first()
        .expect("the topic that was asked for");
    match topic.error() {
        None => topic.partitions().len(),
        Some(_) => 0,
    }
}

/// Returns the end offset of each partition of the test's topic.
pub fn ends(lab: &Lab) -> Vec<i64> {
    let asking = asking(lab);
    let numbers = 0..i32::try_from(partitions(lab)).expect("few partitions");
    numbers
        .map(|partition| {
            let bounds = asking.fetch_watermarks(&lab.database, partition, PATIENCE);
            bounds.expect("the ends of a partition").1
        })
        .collect()
}

/// Counts the records of the test's topic with a row that a watermark before them had passed already:
/// the feed has begun again from an older checkpoint.
pub fn told_again(lab: &Lab) -> usize {
    let (reading, ends) = (asking(lab), ends(lab));
    let mut list = TopicPartitionList::new();
    for partition in (0..).take(ends.len()) {
        list.add_partition_offset(&lab.database, partition, Offset::Beginning)
            .expect("an offset");
    }
    reading.assign(&list).expect("assigned");
    let mut left: i64 = ends.iter().sum();
    let mut newest = vec![0; ends.len()];
    let mut again = 0;
    while left > 0 {
        let record = reading.poll(PATIENCE).expect("a record").expect("read");
        let partition = usize::try_from(record.partition()).expect("a number");
        if record.offset() >= ends[partition] {
            continue;
        }
        left -= 1;
        let key = first_key(record.key().expect("a key"));
        match (key["t"].as_u64(), key["ts"].as_u64()) {
            (Some(1), Some(ts)) => again += usize::from(ts <= newest[partition]),
            (Some(3), Some(ts)) => newest[partition] = ts.max(newest[partition]),
            _ => {}
        }
    }
    again
}

/// Returns the first message's key of a record: it comes behind the version and its own length.
fn first_key(key: &[u8]) -> serde_json::Value {
    let (length, rest) = key[8..].split_first_chunk().expect("a length");
    let length = usize::try_from(u64::from_be_bytes(*length)).expect("a length");
    serde_json::from_slice(&rest[..length]).expect("a key of TiCDC's")
}

/// Gives the test's topic more partitions.
pub async fn add_partitions(lab: &Lab, count: usize) {
    let more = NewPartitions::new(&lab.database, count);
    let done = admin(lab)
        .create_partitions([&more], &AdminOptions::new())
        .await;
    let done = done.expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// Deletes the test's topic, which nobody may then be writing.
pub async fn delete_topic(lab: &Lab) {
    let deleted = admin(lab)
        .delete_topics(&[&lab.database], &AdminOptions::new())
        .await;
    let deleted = deleted.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    wait_until("the topic is gone", PATIENCE, || {
        (partitions(lab) == 0).then_some(())
    });
}

/// Makes the test's topic.
pub async fn create_topic(lab: &Lab, partitions: i32) {
    let topic = NewTopic::new(&lab.database, partitions, TopicReplication::Fixed(1));
    let made = admin(lab)
        .create_topics([&topic], &AdminOptions::new())
        .await;
    let made = made.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Has Kafka drop all that it holds of the feed now.
pub async fn drop_records(lab: &Lab) {
    drop_records_before(lab, &ends(lab)).await;
}

/// Has Kafka drop what it holds of the feed before these offsets, one of each partition.
pub async fn drop_records_before(lab: &Lab, offsets: &[i64]) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(offsets) {
        list.add_partition_offset(&lab.database, partition, Offset::Offset(*offset))
            .expect("an offset");
    }
    let dropped = admin(lab).delete_records(&list, &AdminOptions::new()).await;
    let dropped = dropped.expect("an answer");
    assert!(
        dropped.elements().iter().all(|of| of.error().is_ok()),
        "{dropped:?}"
    );
}

/// Has Kafka keep what the feed of a test sends for so many milliseconds.
pub async fn keep_for(lab: &Lab, milliseconds: &str) {
    let topic = ResourceSpecifier::Topic(&lab.database);
    let topic = AlterConfig::new(topic).set("retention.ms", milliseconds);
    let altered = admin(lab)
        .alter_configs([&topic], &AdminOptions::new())
        .await;
    altered.expect("an answer")[0].as_ref().expect("altered");
}

/// Sends a record to a partition of the test's topic, as nobody but its changefeed should.
pub fn send(lab: &Lab, partition: i32, key: Option<&[u8]>, value: &[u8]) {
    let producer: BaseProducer = config(lab).create().expect("a producer");
    send_by(&producer, lab, partition, key, value);
    producer.flush(PATIENCE).expect("acknowledged");
}

/// Sends a record in a transaction that is given up: nobody sees it, and yet it takes offsets.
pub fn send_and_give_up(lab: &Lab, partition: i32) {
    let producer: BaseProducer = config(lab)
        .set("transactional.id", format!("{}-stranger", lab.database))
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    producer.begin_transaction().expect("begun");
    send_by(&producer, lab, partition, None, b"given up");
    producer.flush(PATIENCE).expect("acknowledged");
    producer.abort_transaction(PATIENCE).expect("given up");
}

fn send_by(producer: &BaseProducer, lab: &Lab, partition: i32, key: Option<&[u8]>, value: &[u8]) {
    let mut record = BaseRecord::<[u8], [u8]>::to(&lab.database)
        .partition(partition)
        .payload(value);
    record.key = key;
    let sent = producer.send(record).map_err(|(error, _)| error);
    sent.expect("sent");
}
