//! Kafka: reading the change feed from offsets that the target keeps.
//!
//! Partitions are assigned by hand and offsets are never committed to Kafka: where to read on
//! stands in the fence row, in the transaction of the rows (INV-3).

mod claims;
mod client;
mod fault;
mod identity;
mod reach;
mod retention;
mod spool;
mod spooled;
mod ticdc;
mod topics;

pub use claims::ClaimStore;
pub use retention::{Keeping, come_near};
pub use spool::{Filling, Need, Spool, fill};
pub use ticdc::TiCdcServer;

use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Message, Offsets, decode, looks_like, rows_without_values};
use crate::task::FeedTask;
use client::{Client, EVENTS_PER_LOOK, hear, open, reach_brokers};
use fault::{
    Trouble, deleted, failure, foreign, gap, is_absence, is_passing, left_out, lost_offset,
    no_topic, repartitioned,
};
use identity::{TopicIds, ask_ids};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use spool::Raw;
use spooled::Spooled;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;
use topics::{Watching, assert_complete, topics_of};

/// How often it is tried to come back to brokers that accept rowproof no more.
const REOPEN_TRIES: u32 = 8;

/// The pause between two such tries.
const REOPEN_PAUSE: Duration = Duration::from_secs(3);

/// Has the clients of storages and of TiCDC take a provider of cryptography: they take that of the
/// process. The database's client brings its own.
fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The messages of one Kafka record, and where it stood.
#[derive(Debug)]
pub struct FeedRecord {
    /// The number of the partition, see [`Offsets`].
    pub partition: usize,
    /// The offset.
    pub offset: i64,
    /// The messages.
    pub messages: Vec<Message>,
    /// The size of the record, and of its messages in memory.
    pub bytes: usize,
}

/// What the feed brings.
#[derive(Debug)]
pub enum FeedEvent {
    /// A record.
    Record(FeedRecord),
    /// A topic that is read from now on; its partitions are numbered behind all others.
    Topic {
        /// Its name.
        name: String,
        /// From where each of its partitions is read.
        offsets: Vec<i64>,
    },
}

/// The topics of the feed.
pub struct Feed {
    task: FeedTask,
    client: Client,
    ids: TopicIds,
    /// From where each partition is read next; it numbers them, too.
    offsets: Offsets,
    watching: Watching,
    /// What comes before the next record.
    queue: VecDeque<FeedEvent>,
    spooled: Spooled,
    idle: Vec<String>,
    /// Set when the brokers accept this client no more.
    is_shut_out: bool,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({self})")
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, offsets)) in self.offsets.topics().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}topic {name} with {} partitions", offsets.len())?;
        }
        Ok(())
    }
}

impl Feed {
    /// Connects to the brokers and looks the topics up.
    ///
    /// # Errors
    /// If no broker answers or accepts rowproof, or a topic does not exist.
    pub async fn connect(task: &FeedTask) -> Result<Feed> {
        let (client, found) = connected(task).await?;
        let mut offsets = Offsets::default();
        for (name, partitions) in found {
            offsets.add(name, vec![0; partitions]);
        }
        let mut ids = TopicIds::default();
        ids.note(client.context().topic_ids())?;
        Ok(Feed {
            task: task.clone(),
            client,
            ids,
            offsets,
            watching: Watching::default(),
            queue: VecDeque::new(),
            spooled: Spooled::default(),
            idle: Vec::new(),
            is_shut_out: false,
        })
    }

    /// Returns the first topic, whose name old records lack.
    pub fn topic(&self) -> &str {
        self.task.topic()
    }

    /// Returns the ids that Kafka gave to the topics, as far as it tells them.
    pub fn topic_ids(&self) -> &BTreeMap<String, String> {
        self.ids.by_topic()
    }

    /// Asserts that the topics are those which had these ids.
    ///
    /// # Errors
    /// If one was deleted and made anew.
    pub fn assert_same_topics(&mut self, kept: BTreeMap<String, String>) -> Result<()> {
        self.ids.note(kept)
    }

    /// Returns from where each partition is read next.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Tells whether the brokers accept this client no more, so that [`Feed::next`] comes back by a
    /// new one.
    pub fn is_shut_out(&self) -> bool {
        self.is_shut_out
    }

    /// Returns the topics that were found to get no watermarks.
    pub fn idle_topics(&self) -> &[String] {
        &self.idle
    }

    /// Returns for each partition the first offset that Kafka holds and the one behind the last.
    pub async fn ends(&self) -> Result<Vec<(i64, i64)>> {
        self.offsets
            .places()
            .map(|(topic, partition, _)| self.bounds(topic, partition))
            .collect()
    }

    /// Tells whether everything from these offsets on is still there.
    pub async fn holds(&self, offsets: &Offsets) -> Result<bool> {
        let mut in_kafka = true;
        for (topic, partition, offset) in offsets.places() {
            if self.offsets.number(topic, partition).is_none() {
                return Ok(false);
            }
            in_kafka &= offset >= self.bounds(topic, partition)?.0;
        }
        let first = |topic: &str, partition| Ok(self.bounds(topic, partition)?.0);
        Ok(in_kafka || self.spooled.holds(offsets, first)?)
    }

    /// Begins reading at offsets that were kept. Topics that are not among them are read from their
    /// beginning; they come as events.
    ///
    /// # Errors
    /// If a topic is gone or has another number of partitions, or Kafka no longer holds an offset.
    pub async fn seek(&mut self, offsets: &Offsets) -> Result<()> {
        let found: Vec<(String, usize)> = self
            .offsets
            .topics()
            .map(|(name, of)| (name.to_owned(), of.len()))
            .collect();
        for (name, of) in offsets.topics() {
            match found.iter().find(|(topic, _)| topic == name) {
                Some((_, partitions)) if *partitions == of.len() => {}
                Some((_, partitions)) => return Err(repartitioned(name, *partitions, of.len())),
                None if self.task.reads(name) => return Err(no_topic(name, &self.task.brokers)),
                None => return Err(left_out(name)),
            }
        }
        self.spooled.seek(offsets)?;
        if !self.spooled.is_read() {
            self.assert_held(offsets)?;
        }
        self.offsets = offsets.clone();
        let is_new = |(name, _): &(String, usize)| self.offsets.number(name, 0).is_none();
        let new: Vec<(String, usize)> = found.into_iter().filter(is_new).collect();
        self.add_topics(&new)?;
        match self.spooled.is_read() {
            true => Ok(()),
            false => self.assign(),
        }
    }

    /// Asserts that Kafka holds what is read next.
    fn assert_held(&self, offsets: &Offsets) -> Result<()> {
        for (topic, partition, offset) in offsets.places() {
            let held = self.bounds(topic, partition)?;
            if offset < held.0 || offset > held.1 {
                return Err(lost_offset(topic, partition, offset, held));
            }
        }
        Ok(())
    }

    fn assign(&self) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in self.offsets.places() {
            list.add_partition_offset(topic, partition_number(partition), Offset::Offset(offset))
                .map_err(|error| failure(topic, &error))?;
        }
        self.client
            .assign(&list)
            .map_err(|error| failure(self.task.topic(), &error))
    }

    /// Returns what comes next, as soon as there is something. It may be abandoned at any moment
    /// and called again.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub async fn next_event(&mut self) -> Result<FeedEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            let record = match self.spooled.is_read() {
                true => self.next_spooled().await?,
                false => Some(self.next().await?),
            };
            let Some(mut record) = record else {
                continue;
            };
            let may_grow = self.may_grow();
            let place = self.offsets.places().nth(record.partition);
            let (topic, _, _) = place.expect("it was numbered just now");
            self.watching.note(topic, &mut record, may_grow);
            return Ok(FeedEvent::Record(record));
        }
    }

    /// Returns the next record of Kafka, as soon as there is one. It may be abandoned at any moment and
    /// called again.
    ///
    /// # Errors
    /// If it is not in Open Protocol, or reading fails for good; passing faults are retried by
    /// librdkafka.
    pub async fn next(&mut self) -> Result<FeedRecord> {
        self.receive(decoded).await
    }

    /// Hands out the next record of Kafka as it is.
    ///
    /// # Errors
    /// As [`Feed::next`], and what `take` says.
    async fn next_raw(&mut self, mut take: impl FnMut(&Raw<'_>) -> Result<()>) -> Result<()> {
        self.receive(|_, raw| take(raw)).await
    }

    async fn receive<T>(
        &mut self,
        mut take_one: impl FnMut(usize, &Raw<'_>) -> Result<T>,
    ) -> Result<T> {
        loop {
            if self.is_shut_out {
                self.reopen().await?;
            }
            let received = self.client.recv().await;
            // A new topic is told of before anything is fetched from it.
            self.ids.note(self.client.context().topic_ids())?;
            let error = match received {
                Ok(message) => {
                    let raw = Raw {
                        topic: message.topic(),
                        partition: usize::try_from(message.partition()).unwrap_or_default(),
                        offset: message.offset(),
                        key: message.key().unwrap_or_default(),
                        value: message.payload().unwrap_or_default(),
                    };
                    // What was fetched before topics were assigned anew may come once more.
                    let Some(number) = self.offsets.number(raw.topic, raw.partition) else {
                        continue;
                    };
                    match take(&mut self.offsets, number, &raw, &mut take_one)? {
                        Some(taken) => return Ok(taken),
                        None => continue,
                    }
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
                None if is_absence(&error) => self.assert_there()?,
                None => return Err(self.failed(&error)),
            }
        }
    }

    /// Hears what librdkafka has to say while nothing is read of Kafka: else it would gather without
    /// end (INV-8), and nobody would know that a topic was made anew.
    fn hear_unread(&mut self) -> Result<()> {
        hear(&self.client, EVENTS_PER_LOOK + 8 * self.offsets.len());
        self.ids.note(self.client.context().topic_ids())
    }

    /// Asserts that the topics exist, with as many partitions as before; what has been made anew is
    /// told of otherwise.
    fn assert_there(&self) -> Result<()> {
        let found = tokio::task::block_in_place(|| topics_of(&self.client, &self.task));
        let Ok(found) = found else {
            return Ok(());
        };
        self.assert_partitions(&found)?;
        let is_found = |name: &str| found.iter().any(|(topic, _)| topic == name);
        match self.offsets.topics().find(|(name, _)| !is_found(name)) {
            Some((gone, _)) => Err(deleted(gone)),
            None => Ok(()),
        }
    }

    /// Says what a fault means that does not pass.
    fn failed(&self, error: &KafkaError) -> Error {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
            && let Err(lost) = self.assert_held(&self.offsets)
        {
            return lost;
        }
        failure(self.task.topic(), error)
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
        let (client, found) = connected(&self.task).await?;
        let old = std::mem::replace(&mut self.client, client);
        // Closing it waits for its threads.
        tokio::task::spawn_blocking(move || drop(old));
        self.ids.note(self.client.context().topic_ids())?;
        self.assert_partitions(&found)?;
        let offsets = self.offsets.clone();
        self.seek(&offsets).await
    }
}

/// Takes the record that comes next on a partition, and passes over one that came before.
///
/// # Errors
/// If records between are missing, and what `take_one` says.
fn take<T>(
    offsets: &mut Offsets,
    number: usize,
    raw: &Raw<'_>,
    mut take_one: impl FnMut(usize, &Raw<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let next = offsets.at_mut(number);
    if raw.offset < *next {
        return Ok(None);
    }
    if raw.offset > *next {
        return Err(gap(raw.topic, raw.partition, *next, raw.offset));
    }
    let taken = take_one(number, raw)?;
    *next = raw.offset + 1;
    Ok(Some(taken))
}

/// Takes a record apart.
///
/// # Errors
/// If it is not in Open Protocol.
fn decoded(number: usize, raw: &Raw<'_>) -> Result<FeedRecord> {
    let messages = decode(raw.key, raw.value).or_else(|what| {
        rows_without_values(raw.key).ok_or_else(|| {
            let place = (raw.topic, raw.partition, raw.offset);
            foreign(place, what, looks_like(raw.value))
        })
    })?;
    // What was compressed is larger now.
    let rows = messages.iter().map(Message::byte_len).sum::<usize>();
    Ok(FeedRecord {
        partition: number,
        offset: raw.offset,
        messages,
        bytes: rows.max(raw.key.len() + raw.value.len()),
    })
}

/// Makes a client and looks the topics up.
async fn connected(task: &FeedTask) -> Result<(Client, Vec<(String, usize)>)> {
    let task = task.clone();
    blocking(move || {
        let client = open(&task)?;
        reach_brokers(&client, &task)?;
        let found = topics_of(&client, &task).map_err(|error| failure(&task.brokers, &error))?;
        assert_complete(&task, &found)?;
        ask_ids(&client, &found);
        Ok((client, found))
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
