//! Kafka: reading the change feed from offsets that the target keeps.
//!
//! Partitions are assigned by hand and offsets are never committed to Kafka: where to read on
//! stands in the fence row, in the transaction of the rows (INV-3).

use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Message, decode, physical_ms, rows_without_values};
use crate::task::FeedTask;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// How long a question to the brokers may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the feed may be silent while its reach is looked up. TiCDC sends a watermark a second, but
/// the locks of a session that died hold it back until they expire, which takes TiDB half a minute.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The age in milliseconds at which a watermark no longer shows that its changefeed lives.
const WATERMARK_AGE_MAX_MS: u64 = 300_000;

/// How many records of a partition are looked through for a watermark before the end, at first.
const LOOK_BACK: i64 = 200;

/// The messages of one Kafka record, and where it stood.
#[derive(Debug)]
pub struct FeedRecord {
    /// The partition.
    pub partition: usize,
    /// The offset.
    pub offset: i64,
    /// The messages.
    pub messages: Vec<Message>,
    /// The size of the record, which is about that of its messages in memory.
    pub bytes: usize,
}

/// The feed's topic.
pub struct Feed {
    consumer: StreamConsumer,
    topic: String,
    partitions: usize,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({}, {} partitions)", self.topic, self.partitions)
    }
}

impl Feed {
    /// Connects to the brokers and looks the topic up.
    ///
    /// # Errors
    /// If no broker answers, or the topic does not exist.
    pub async fn connect(task: &FeedTask) -> Result<Feed> {
        let task = task.clone();
        blocking(move || Feed::connect_blocking(&task)).await
    }

    fn connect_blocking(task: &FeedTask) -> Result<Feed> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &task.brokers)
            .set("group.id", "rowproof")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that Kafka no longer has is lost data: it must be loud.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // Bounds of what librdkafka holds for us (INV-8).
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.message.max.bytes", "4194304")
            .set("log_level", "2");
        for (name, value) in &task.settings {
            config.set(name, value);
        }
        let consumer: StreamConsumer = config.create().map_err(|error| {
            // The error's own text holds the value, which may be a password (INV-7).
            let name = match &error {
                KafkaError::ClientConfig(_, _, name, _) => name.as_str(),
                _ => "one of them",
            };
            Error::new(
                ErrorKind::Usage,
                format!("[feed] settings: librdkafka refuses {name}"),
            )
            .advise("see librdkafka's list of settings")
        })?;
        let topic = task.topic().to_owned();
        let partitions =
            partitions_of(&consumer, &topic).map_err(|error| failure(&task.brokers, &error))?;
        if partitions == 0 {
            return Err(no_topic(&topic, &task.brokers));
        }
        Ok(Feed {
            consumer,
            topic,
            partitions,
        })
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Asserts that no partition was added: what is sent there would never be read, while the
    /// watermarks of the others go on.
    ///
    /// # Errors
    /// If the number has changed. That the brokers do not answer is no error here: reading will
    /// tell.
    pub fn assert_partitions(&self) -> Result<()> {
        let found =
            tokio::task::block_in_place(|| partitions_of(&self.consumer, &self.topic)).unwrap_or(0);
        if found == self.partitions || found == 0 {
            return Ok(());
        }
        Err(repartitioned(&self.topic, found, self.partitions))
    }

    /// Returns for each partition the first offset that Kafka holds and the one behind the last.
    pub async fn ends(&self) -> Result<Vec<(i64, i64)>> {
        tokio::task::block_in_place(|| {
            (0..self.partitions)
                .map(|partition| {
                    let partition = partition_number(partition);
                    self.consumer
                        .fetch_watermarks(&self.topic, partition, METADATA_TIMEOUT)
                        .map_err(|error| failure(&self.topic, &error))
                })
                .collect()
        })
    }

    /// Tells whether everything from these offsets on is still there.
    pub async fn holds(&self, offsets: &[i64]) -> Result<bool> {
        let ends = self.ends().await?;
        Ok(ends.len() == offsets.len()
            && ends.iter().zip(offsets).all(|((first, _), at)| at >= first))
    }

    /// Begins reading at one offset for each partition.
    ///
    /// # Errors
    /// If the number of partitions has changed, or Kafka no longer holds an offset.
    pub async fn seek(&self, offsets: &[i64]) -> Result<()> {
        if offsets.len() != self.partitions {
            return Err(repartitioned(&self.topic, self.partitions, offsets.len()));
        }
        for (partition, ((first, end), offset)) in
            self.ends().await?.iter().zip(offsets).enumerate()
        {
            if offset < first || offset > end {
                return Err(lost_offset(&self.topic, partition, *offset, *first, *end));
            }
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets.iter().enumerate() {
            list.add_partition_offset(
                &self.topic,
                partition_number(partition),
                Offset::Offset(*offset),
            )
            .map_err(|error| failure(&self.topic, &error))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|error| failure(&self.topic, &error))
    }

    /// Returns the next record, as soon as there is one.
    ///
    /// # Errors
    /// If it is not in Open Protocol, or reading fails for good; passing faults are retried by
    /// librdkafka.
    pub async fn next(&self) -> Result<FeedRecord> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let partition = usize::try_from(message.partition()).unwrap_or_default();
                    let key = message.key().unwrap_or_default();
                    let value = message.payload().unwrap_or_default();
                    let messages = decode(key, value).or_else(|what| {
                        let foreign = foreign(&self.topic, partition, message.offset(), what);
                        rows_without_values(key).ok_or(foreign)
                    })?;
                    return Ok(FeedRecord {
                        partition,
                        offset: message.offset(),
                        messages,
                        bytes: key.len() + value.len(),
                    });
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(failure(&self.topic, &error)),
            }
        }
    }

    /// Proves that the feed covers everything that commits after `base`: each partition must hold a
    /// watermark at or below it. Messages up to `ends` were there before `base` was taken.
    ///
    /// # Errors
    /// If a partition's first watermark is above `base`, or none comes at all.
    pub async fn assert_reaches_back(&self, base: CommitTs, ends: &[(i64, i64)]) -> Result<()> {
        let mut covered = vec![false; self.partitions];
        let mut look_back = LOOK_BACK;
        loop {
            let starts: Vec<i64> = ends
                .iter()
                .map(|(first, end)| (end - look_back).max(*first))
                .collect();
            self.seek(&starts).await?;
            let complete = self.look_for_watermarks(base, ends, &mut covered).await?;
            if covered.iter().all(|covered| *covered) {
                return Ok(());
            }
            let all_read = starts
                .iter()
                .zip(ends)
                .all(|(start, (first, _))| start == first);
            if all_read || !complete {
                return Err(self.uncovered(base, &covered));
            }
            look_back = look_back.saturating_mul(16);
        }
    }

    /// Reads on until every partition has shown a watermark; tells whether all of them did.
    async fn look_for_watermarks(
        &self,
        base: CommitTs,
        ends: &[(i64, i64)],
        covered: &mut [bool],
    ) -> Result<bool> {
        let mut passed: Vec<bool> = covered.to_vec();
        let deadline = Instant::now() + SILENCE_MAX;
        while !passed.iter().all(|passed| *passed) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(record) = tokio::time::timeout(left, self.next()).await else {
                return Ok(false);
            };
            let record = record?;
            for message in &record.messages {
                if let Message::Watermark(ts) = message {
                    covered[record.partition] |= is_alive_at(*ts, base);
                    // The first watermark behind the end settles it: later ones are higher.
                    passed[record.partition] |=
                        is_alive_at(*ts, base) || record.offset >= ends[record.partition].1;
                }
            }
        }
        Ok(true)
    }

    fn uncovered(&self, base: CommitTs, covered: &[bool]) -> Error {
        let missing: Vec<String> = covered
            .iter()
            .enumerate()
            .filter(|(_, covered)| !**covered)
            .map(|(partition, _)| partition.to_string())
            .collect();
        Error::new(
            ErrorKind::Feed,
            format!(
                "the feed does not reach back to the start of the load: topic {} has no watermark \
                 of the five minutes up to {base} on partition {}",
                self.topic,
                missing.join(", ")
            ),
        )
        .advise(format!(
            "create the changefeed first, or look why it sends no watermark: cdc cli changefeed \
             create --sink-uri=\"kafka://BROKER/{}?protocol=open-protocol&partition-num={}\"",
            self.topic, self.partitions
        ))
    }
}

/// Tells whether a watermark shows that the feed covered `base` and was alive then: one that a
/// changefeed left behind which was removed long ago covers nothing.
fn is_alive_at(watermark: CommitTs, base: CommitTs) -> bool {
    watermark <= base && physical_ms(base) - physical_ms(watermark) < WATERMARK_AGE_MAX_MS
}

/// Tells faults after which librdkafka goes on by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::PartitionEOF
        )
    )
}

fn failure(place: &str, error: &KafkaError) -> Error {
    let kind = if is_passing(error) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Feed
    };
    Error::new(kind, format!("Kafka ({place}): {error}"))
        .advise("check [feed] brokers and topics in the task file, and that Kafka runs")
}

fn no_topic(topic: &str, brokers: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("Kafka ({brokers}) has no topic {topic}"),
    )
    .advise(format!(
        "create the changefeed: cdc cli changefeed create \
         --sink-uri=\"kafka://{brokers}/{topic}?protocol=open-protocol&partition-num=4\""
    ))
}

/// Returns how many partitions a topic has; 0 if it does not exist.
fn partitions_of(consumer: &StreamConsumer, topic: &str) -> KafkaResult<usize> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    Ok(metadata
        .topics()
        .first()
        .filter(|found| found.error().is_none())
        .map_or(0, |found| found.partitions().len()))
}

fn repartitioned(topic: &str, now: usize, before: usize) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("topic {topic} has {now} partitions now and had {before} when the feed began"),
    )
    .advise("rows may have moved between partitions: begin again with a new task name")
}

fn lost_offset(topic: &str, partition: usize, offset: i64, first: i64, end: i64) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "topic {topic} partition {partition} must be read from offset {offset}, but Kafka \
             holds {first} to {end}: changes are lost"
        ),
    )
    .advise("raise the topic's retention and begin again with a new task name")
}

fn foreign(topic: &str, partition: usize, offset: i64, what: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("topic {topic} partition {partition} offset {offset}: {what}"),
    )
    .advise(
        "the topic must carry one changefeed with protocol=open-protocol and nothing else; \
         create one with a topic of its own",
    )
}

fn partition_number(partition: usize) -> i32 {
    i32::try_from(partition).expect("Kafka numbers partitions with 32 bits")
}

/// Runs librdkafka's blocking calls beside the async tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::new(ErrorKind::Broken, "a call of the Kafka client panicked"))?
}
