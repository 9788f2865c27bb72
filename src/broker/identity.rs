//! Which topics these are: Kafka gives each an id when it is made, so that one that was deleted and
//! made anew under its old name is told from the one that was read, whatever its offsets are.

use super::client::{Client, EVENTS_PER_LOOK, METADATA_TIMEOUT, hear};
use super::fault::recreated;
use crate::error::Result;
use rdkafka::consumer::Consumer;
use std::collections::BTreeMap;

/// How librdkafka 2.12 tells the id of a topic, which its interface for Rust does not show: in a line
/// of its log (rdkafka_topic.c, facility METADATA), before it asks for a record under that id. Brokers
/// before Kafka 2.8 know none; then nothing is said.
const TOLD: (&str, &str, &str) = ("Topic ", " changed id from ", " to ");

/// Reads topic and id from a line of librdkafka's log, if it tells one.
pub(super) fn told_id(line: &str) -> Option<(String, String)> {
    let line = &line[line.find(TOLD.0)? + TOLD.0.len()..];
    let (topic, ids) = line.split_once(TOLD.1)?;
    let (_, id) = ids.split_once(TOLD.2)?;
    Some((topic.to_owned(), id.trim().to_owned()))
}

/// The ids of the topics that are read.
#[derive(Debug, Default)]
pub(super) struct TopicIds(BTreeMap<String, String>);

impl TopicIds {
    /// Takes in what was heard or kept.
    ///
    /// # Errors
    /// If a topic has another id than before.
    pub(super) fn note(&mut self, told: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        for (topic, id) in told {
            match self.0.get(&topic) {
                Some(known) if *known != id => return Err(recreated(&topic)),
                Some(_) => {}
                None => {
                    self.0.insert(topic, id);
                }
            }
        }
        Ok(())
    }

    /// Returns them by topic.
    pub(super) fn by_topic(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Asks for the ids of some topics, of which the numbers of partitions are known: each is a line of
/// the log. Nothing may be assigned yet: messages would be lost here.
pub(super) fn ask_ids(client: &Client, topics: &[(String, usize)]) {
    for (topic, partitions) in topics {
        let _ = client.fetch_metadata(Some(topic), METADATA_TIMEOUT);
        hear(client, EVENTS_PER_LOOK + 4 * partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_the_log_and_another_one_is_an_error() {
        let line = |from: &str, to: &str| {
            format!("[thrd:main]: Topic shop.a changed id from {from} to {to}")
        };
        let first = told_id(&line("AAAAAAAAAAAAAAAAAAAAAA", "B0x_-1"));
        assert_eq!(first, Some(("shop.a".to_owned(), "B0x_-1".to_owned())));
        assert_eq!(
            told_id("[thrd:main]: Topic shop.a [0] Leader 1 Epoch 0"),
            None
        );
        let mut ids = TopicIds::default();
        ids.note(first.clone()).expect("the first one");
        ids.note(first).expect("the same one");
        let other = told_id(&line("B0x_-1", "C0y"));
        let error = ids.note(other).expect_err("another one");
        assert!(error.message().contains("shop.a"), "{error}");
    }
}
