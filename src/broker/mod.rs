//! Kafka: reading the change feed from offsets that the target keeps.
//!
//! Partitions are assigned by hand and offsets are never committed to Kafka: where to read on
//! stands in the fence row, in the transaction of the rows (INV-3).

mod client;
mod fault;
mod reach;

use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Message, decode};
use crate::task::FeedTask;
use client::{Client, METADATA_TIMEOUT, look_up, open, partitions_of};
use fault::{Trouble, failure, foreign, is_passing, lost_offset, no_topic, repartitioned};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

/// How often it is tried to come back to brokers that accept rowproof no more.
const REOPEN_TRIES: u32 = 8;

/// The pause between two such tries.
const REOPEN_PAUSE: Duration = Duration::from_secs(3);

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
    task: FeedTask,
    client: Client,
    topic: String,
    partitions: usize,
    /// For each partition the offset of the next record; empty before anything is read.
    next_offsets: Vec<i64>,
    /// Set when the brokers accept this client no more.
    is_shut_out: bool,
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
    /// If no broker answers or accepts rowproof, or the topic does not exist.
    pub async fn connect(task: &FeedTask) -> Result<Feed> {
        let (client, partitions) = connected(task).await?;
        Ok(Feed {
            task: task.clone(),
            client,
            topic: task.topic().to_owned(),
            partitions,
            next_offsets: Vec::new(),
            is_shut_out: false,
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
        let found = tokio::task::block_in_place(|| {
            partitions_of(&self.client, &self.topic, METADATA_TIMEOUT)
        })
        .unwrap_or(0);
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
                    self.client
                        .fetch_watermarks(&self.topic, partition, METADATA_TIMEOUT)
                        .map_err(|error| failure(&self.topic, &error))
                })
                .collect()
        })
    }

    /// Begins reading at one offset for each partition.
    ///
    /// # Errors
    /// If the number of partitions has changed, or Kafka no longer holds an offset.
    pub async fn seek(&mut self, offsets: &[i64]) -> Result<()> {
        if offsets.len() != self.partitions {
            return Err(repartitioned(&self.topic, self.partitions, offsets.len()));
        }
        for (partition, (held, offset)) in self.ends().await?.iter().zip(offsets).enumerate() {
            if *offset < held.0 || *offset > held.1 {
                return Err(lost_offset(&self.topic, partition, *offset, *held));
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
        self.client
            .assign(&list)
            .map_err(|error| failure(&self.topic, &error))?;
        self.next_offsets = offsets.to_vec();
        Ok(())
    }

    /// Returns the next record, as soon as there is one. It may be abandoned at any moment and
    /// called again.
    ///
    /// # Errors
    /// If it is not in Open Protocol, or reading fails for good; passing faults are retried by
    /// librdkafka.
    pub async fn next(&mut self) -> Result<FeedRecord> {
        loop {
            if self.is_shut_out {
                self.reopen().await?;
            }
            let error = match self.client.recv().await {
                Ok(message) => {
                    let partition = usize::try_from(message.partition()).unwrap_or_default();
                    let key = message.key().unwrap_or_default();
                    let value = message.payload().unwrap_or_default();
                    let messages = decode(key, value)
                        .map_err(|what| foreign(&self.topic, partition, message.offset(), what))?;
                    self.next_offsets[partition] = message.offset() + 1;
                    return Ok(FeedRecord {
                        partition,
                        offset: message.offset(),
                        messages,
                        bytes: key.len() + value.len(),
                    });
                }
                Err(error) => error,
            };
            match self.shut_out_by(&error) {
                Some(trouble) => {
                    let error = trouble.error(&self.task.brokers);
                    tracing::warn!(error = %error.message(), "connecting anew");
                    self.is_shut_out = true;
                }
                None if is_passing(&error) => {}
                None => return Err(failure(&self.topic, &error)),
            }
        }
    }

    /// Tells why the brokers accept this client no more, if they do not.
    fn shut_out_by(&self, error: &KafkaError) -> Option<Trouble> {
        let heard = self.client.context().trouble();
        let heard = heard.filter(|trouble| *trouble != Trouble::Protocol);
        heard.or_else(|| Trouble::of(error, ""))
    }

    /// Begins anew where it stood, with the passwords and certificates that the files hold now:
    /// librdkafka keeps those with which a client was made.
    ///
    /// # Errors
    /// If the brokers do not accept it after a while either.
    async fn reopen(&mut self) -> Result<()> {
        let mut tries = REOPEN_TRIES;
        loop {
            tries -= 1;
            let error = match self.reopen_once().await {
                Ok(()) => {
                    self.is_shut_out = false;
                    return Ok(());
                }
                Err(error) => error,
            };
            let passes = matches!(
                error.kind(),
                ErrorKind::Refused | ErrorKind::Usage | ErrorKind::Unavailable
            );
            if tries == 0 || !passes {
                return Err(error);
            }
            tracing::warn!(error = %error.message(), "trying again");
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    async fn reopen_once(&mut self) -> Result<()> {
        let (client, partitions) = connected(&self.task).await?;
        if partitions != self.partitions {
            return Err(repartitioned(&self.topic, partitions, self.partitions));
        }
        let old = std::mem::replace(&mut self.client, client);
        // Closing it waits for its threads.
        tokio::task::spawn_blocking(move || drop(old));
        let offsets = self.next_offsets.clone();
        self.seek(&offsets).await
    }
}

/// Makes a client and counts the partitions of the topic.
async fn connected(task: &FeedTask) -> Result<(Client, usize)> {
    let task = task.clone();
    blocking(move || {
        let client = open(&task)?;
        match look_up(&client, &task, task.topic())? {
            0 => Err(no_topic(task.topic(), &task.brokers)),
            partitions => Ok((client, partitions)),
        }
    })
    .await
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
