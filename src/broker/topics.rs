//! Several topics of one changefeed: those that come later, and those that have fallen silent.
//!
//! What follows rests on how TiCDC sends (tiflow, cdc/sink/ddlsink/mq and cdc/owner/ddl_manager):
//! a watermark says that every row and every DDL at or below it, of whatever topic, has been
//! acknowledged by Kafka; the same watermarks go to all topics that have tables, and to the
//! default topic. So when a watermark was seen on any topic, then everything up to it lies before
//! the ends that the topics have a moment later, and in topics that exist by then.

use super::client::{Client, METADATA_TIMEOUT};
use super::fault::{failure, lost_offset, no_topic, repartitioned};
use super::{Feed, FeedEvent, FeedRecord};
use crate::error::Result;
use crate::feed::{CommitTs, Message, physical_ms};
use crate::task::FeedTask;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is looked whether the topics have the same partitions as before.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often when there are several, and the feed waits for what the look finds.
const LOOK_EVERY_OF_SEVERAL: Duration = Duration::from_millis(500);

/// How far a topic's watermark is behind the newest when the topic counts as silent.
const SILENT_MS: u64 = 5_000;

/// The watermarks as they come: the highest of each topic, and those that wait for a look.
#[derive(Debug, Default)]
pub(super) struct Watching {
    newest: BTreeMap<String, CommitTs>,
    held: BTreeMap<usize, (i64, CommitTs)>,
}

impl Watching {
    /// Notes the watermarks of a record; where topics may come later, they are taken out of it
    /// and held until it is known that there is no topic that they speak of and nobody reads.
    pub(super) fn note(&mut self, topic: &str, record: &mut FeedRecord, may_grow: bool) {
        for message in &record.messages {
            if let Message::Watermark(ts) = message {
                let newest = self.newest.entry(topic.to_owned()).or_default();
                *newest = (*newest).max(*ts);
                if may_grow {
                    let held = self.held.entry(record.partition).or_default();
                    *held = (record.offset, held.1.max(*ts));
                }
            }
        }
        if may_grow {
            let is_watermark = |message: &Message| matches!(message, Message::Watermark(_));
            record.messages.retain(|message| !is_watermark(message));
        }
    }

    /// Returns the highest watermark of all topics.
    fn newest(&self) -> CommitTs {
        self.newest.values().copied().max().unwrap_or_default()
    }

    /// Tells whether a topic gets none of the watermarks that the others get.
    fn is_silent(&self, topic: &str) -> bool {
        let own = self.newest.get(topic).copied().unwrap_or_default();
        physical_ms(self.newest()).saturating_sub(physical_ms(own)) > SILENT_MS
    }
}

impl Feed {
    /// Returns how often [`Feed::look`] is due.
    pub fn look_every(&self) -> Duration {
        match self.may_grow() || self.offsets.topics().count() > 1 {
            true => LOOK_EVERY_OF_SEVERAL,
            false => LOOK_EVERY,
        }
    }

    /// Looks whether topics have come, and whether silent ones have been read to their ends.
    ///
    /// # Errors
    /// If the number of a topic's partitions has changed: what is sent to a new one would never be
    /// read, while the watermarks of the others go on. That the brokers do not answer is no error
    /// here: reading will tell.
    pub fn look(&mut self) -> Result<()> {
        if self.is_shut_out {
            return Ok(());
        }
        match self.look_once() {
            Err(error) if error.kind().is_retryable() => Ok(()),
            looked => looked,
        }
    }

    fn look_once(&mut self) -> Result<()> {
        let newest = self.watching.newest();
        let found = tokio::task::block_in_place(|| topics_of(&self.client, &self.task));
        if self.spooled.is_read() {
            self.hear_unread()?;
        }
        let Ok(found) = found else {
            return Ok(());
        };
        self.take_up(found)?;
        self.complete_silent(newest)?;
        for (partition, (offset, ts)) in std::mem::take(&mut self.watching.held) {
            self.queue_watermark(partition, offset, ts);
        }
        Ok(())
    }

    /// Looks whether topics have come, and tells it, without a word about watermarks.
    ///
    /// # Errors
    /// As [`Feed::look`].
    pub(super) fn look_for_topics(&mut self) -> Result<bool> {
        if self.is_shut_out {
            return Ok(false);
        }
        let found = tokio::task::block_in_place(|| topics_of(&self.client, &self.task));
        let Ok(found) = found else {
            return Ok(false);
        };
        match self.take_up(found) {
            Ok(()) => Ok(self.queue.drain(..).next().is_some()),
            Err(error) if error.kind().is_retryable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Compares the topics that were found with those that are read, and reads the new ones too.
    fn take_up(&mut self, found: Vec<(String, usize)>) -> Result<()> {
        self.assert_partitions(&found)?;
        let new: Vec<_> = found
            .into_iter()
            .filter(|(name, _)| self.offsets.number(name, 0).is_none())
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.add_topics(&new)?;
        match self.spooled.is_read() {
            true => Ok(()),
            false => self.assign(),
        }
    }

    /// A topic that is gone counts as unchanged: reading will tell.
    pub(super) fn assert_partitions(&self, found: &[(String, usize)]) -> Result<()> {
        for (name, partitions) in found {
            let known = self.offsets.topics().find(|(topic, _)| topic == name);
            if let Some((_, offsets)) = known
                && offsets.len() != *partitions
            {
                return Err(repartitioned(name, *partitions, offsets.len()));
            }
        }
        Ok(())
    }

    /// Adds topics behind the others, from their first record.
    ///
    /// # Errors
    /// If Kafka has dropped records of one already.
    pub(super) fn add_topics(&mut self, new: &[(String, usize)]) -> Result<()> {
        for (name, partitions) in new {
            for partition in 0..*partitions {
                let held = self.bounds(name, partition)?;
                // The spool may have what Kafka has no more; when it is left, that is looked at again.
                if held.0 > 0 && !self.spooled.is_read() {
                    return Err(lost_offset(name, partition, 0, held));
                }
            }
        }
        for (name, partitions) in new {
            let offsets = vec![0; *partitions];
            self.offsets.add(name, offsets.clone());
            let name = name.clone();
            self.queue.push_back(FeedEvent::Topic { name, offsets });
        }
        Ok(())
    }

    /// Says of the topics that get no watermarks, because they have no tables any more, that they
    /// are complete up to the watermark `newest` of others, once all that they held after it was
    /// seen has been read.
    fn complete_silent(&mut self, newest: CommitTs) -> Result<()> {
        let places = self.offsets.places();
        let silent: Vec<_> = places
            .enumerate()
            .filter(|(_, (topic, _, _))| self.watching.is_silent(topic))
            .map(|(number, (topic, partition, next))| (number, topic.to_owned(), partition, next))
            .collect();
        for (number, topic, partition, next) in silent {
            if next >= self.bounds(&topic, partition)?.1 {
                self.queue_watermark(number, next - 1, newest);
            }
        }
        Ok(())
    }

    fn queue_watermark(&mut self, partition: usize, offset: i64, ts: CommitTs) {
        self.queue.push_back(FeedEvent::Record(FeedRecord {
            partition,
            offset,
            messages: vec![Message::Watermark(ts)],
            bytes: 0,
        }));
    }

    /// Returns the first offset that Kafka holds of a partition and the one behind the last.
    pub(super) fn bounds(&self, topic: &str, partition: usize) -> Result<(i64, i64)> {
        let number = super::partition_number(partition);
        tokio::task::block_in_place(|| {
            self.client
                .fetch_watermarks(topic, number, METADATA_TIMEOUT)
                .map_err(|error| failure(topic, &error))
        })
    }

    /// Tells whether topics that come later are read too.
    pub(super) fn may_grow(&self) -> bool {
        self.task.has_pattern()
    }
}

/// Asks for the topics that a task reads, each with the number of its partitions, those that the
/// task file names in its order and then those that fit its patterns.
pub(super) fn topics_of(client: &Client, task: &FeedTask) -> KafkaResult<Vec<(String, usize)>> {
    let mut found = Vec::new();
    for name in task.topics.iter().filter(|name| !name.contains('*')) {
        match super::client::partitions_of(client, name, METADATA_TIMEOUT)? {
            0 => {}
            partitions => found.push((name.clone(), partitions)),
        }
    }
    if task.has_pattern() {
        let metadata = client.fetch_metadata(None, METADATA_TIMEOUT)?;
        for topic in metadata.topics() {
            let is_known = found.iter().any(|(name, _)| name == topic.name());
            if task.reads(topic.name()) && !is_known && topic.error().is_none() {
                found.push((topic.name().to_owned(), topic.partitions().len()));
            }
        }
    }
    Ok(found)
}

/// Asserts that each topic that is named is there, and any at all.
pub(super) fn assert_complete(task: &FeedTask, found: &[(String, usize)]) -> Result<()> {
    let is_found = |name: &&String| found.iter().any(|(topic, _)| topic == *name);
    let mut named = task.topics.iter().filter(|name| !name.contains('*'));
    match named.find(|name| !is_found(name)) {
        Some(missing) => Err(no_topic(missing, &task.brokers)),
        None if found.is_empty() => Err(no_topic(&task.topics.join(", "), &task.brokers)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark(partition: usize, offset: i64, ts_ms: u64) -> FeedRecord {
        FeedRecord {
            partition,
            offset,
            messages: vec![Message::Watermark(ts_ms << 18)],
            bytes: 0,
        }
    }

    #[test]
    fn watermarks_wait_for_a_look_where_topics_may_come_later_and_else_pass() {
        let mut watching = Watching::default();
        let mut record = watermark(1, 7, 100);
        watching.note("a", &mut record, false);
        assert_eq!((record.messages.len(), watching.held.len()), (1, 0));
        watching.note("a", &mut record, true);
        assert!(record.messages.is_empty());
        assert_eq!(watching.held[&1], (7, 100 << 18));
    }

    #[test]
    fn a_topic_is_silent_when_others_are_far_ahead() {
        let mut watching = Watching::default();
        assert!(!watching.is_silent("b"), "nothing was seen of any");
        watching.note("a", &mut watermark(0, 1, 20_000), false);
        watching.note("b", &mut watermark(1, 1, 16_000), false);
        assert!(!watching.is_silent("a") && !watching.is_silent("b"));
        watching.note("a", &mut watermark(0, 2, 22_000), false);
        assert!(watching.is_silent("b") && watching.is_silent("c"));
    }
}
