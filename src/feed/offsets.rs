//! Where the feed is read on.

use serde::{Deserialize, Serialize};

/// For each partition of each topic the offset from which it is read.
///
/// The partitions of all topics are numbered through, in this order. A topic that comes later is
/// numbered behind the others, so that no number ever changes its meaning.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Offsets {
    topics: Vec<(String, Vec<i64>)>,
}

/// How offsets are kept: by topic. Before there could be several, they were a mere list.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Stored {
    OfOneTopic(Vec<i64>),
    ByTopic(Vec<(String, Vec<i64>)>),
}

impl From<Stored> for Offsets {
    fn from(stored: Stored) -> Offsets {
        match stored {
            Stored::OfOneTopic(offsets) => offsets.into(),
            Stored::ByTopic(topics) => Offsets { topics },
        }
    }
}

impl From<Offsets> for Stored {
    fn from(offsets: Offsets) -> Stored {
        Stored::ByTopic(offsets.topics)
    }
}

impl From<Vec<i64>> for Offsets {
    /// Takes the offsets of the only topic, whose name the task file knows.
    fn from(offsets: Vec<i64>) -> Offsets {
        let mut all = Offsets::default();
        if !offsets.is_empty() {
            all.add(String::new(), offsets);
        }
        all
    }
}

impl Offsets {
    /// Adds a topic behind the others.
    pub fn add(&mut self, topic: impl Into<String>, offsets: Vec<i64>) {
        self.topics.push((topic.into(), offsets));
    }

    /// Gives the only topic of an old record its name.
    #[must_use]
    pub fn named(mut self, topic: &str) -> Offsets {
        for (name, _) in &mut self.topics {
            if name.is_empty() {
                topic.clone_into(name);
            }
        }
        self
    }

    /// Returns the topics, each with the offsets of its partitions.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.topics
            .iter()
            .map(|(name, offsets)| (name.as_str(), offsets.as_slice()))
    }

    /// Returns topic, partition within it and offset of each partition, in the order of their
    /// numbers.
    pub fn places(&self) -> impl Iterator<Item = (&str, usize, i64)> {
        self.topics().flat_map(|(name, offsets)| {
            let numbered = offsets.iter().enumerate();
            numbered.map(move |(number, offset)| (name, number, *offset))
        })
    }

    /// Returns how many partitions there are.
    pub fn len(&self) -> usize {
        self.topics.iter().map(|(_, offsets)| offsets.len()).sum()
    }

    /// Tells whether there is no partition.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of a topic's partition.
    pub fn number(&self, topic: &str, partition: usize) -> Option<usize> {
        let mut before = 0;
        for (name, offsets) in &self.topics {
            if name == topic {
                return (partition < offsets.len()).then_some(before + partition);
            }
            before += offsets.len();
        }
        None
    }

    /// Returns the offset of a topic's partition.
    pub fn at(&self, topic: &str, partition: usize) -> Option<i64> {
        let (_, offsets) = self.topics.iter().find(|(name, _)| name == topic)?;
        offsets.get(partition).copied()
    }

    /// Returns the same partitions with other offsets, in the order of their numbers.
    #[must_use]
    pub fn with(&self, offsets: impl IntoIterator<Item = i64>) -> Offsets {
        let mut all = self.clone();
        for (place, offset) in all.iter_mut().zip(offsets) {
            *place = offset;
        }
        all
    }

    /// Goes back where `earlier` lies before, partition by partition. Topics that only `earlier` has
    /// are read from their beginning anyway.
    pub fn go_back_to(&mut self, earlier: &Offsets) {
        for (topic, partition, offset) in earlier.places() {
            if let Some(number) = self.number(topic, partition) {
                let own = self.at_mut(number);
                *own = offset.min(*own);
            }
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut i64> {
        self.topics.iter_mut().flat_map(|(_, offsets)| offsets)
    }

    /// Returns the offset of a partition, to be changed.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn at_mut(&mut self, number: usize) -> &mut i64 {
        self.iter_mut()
            .nth(number)
            .expect("a partition of the feed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_several_topics_and_those_of_an_old_record_are_read_back() {
        let mut all = Offsets::default();
        all.add("a", vec![1, 2]);
        all.add("b", vec![3]);
        let text = serde_json::to_string(&all).expect("JSON");
        assert_eq!(text, r#"[["a",[1,2]],["b",[3]]]"#);
        assert_eq!(serde_json::from_str::<Offsets>(&text).expect("read"), all);
        assert_eq!((all.number("b", 0), all.number("b", 1)), (Some(2), None));
        let old: Offsets = serde_json::from_str("[7,8]").expect("an old record");
        let places: Vec<_> = old
            .named("t")
            .places()
            .map(|(t, n, o)| (t.to_owned(), n, o))
            .collect();
        assert_eq!(places, [("t".to_owned(), 0, 7), ("t".to_owned(), 1, 8)]);
        let none: Offsets = serde_json::from_str("[]").expect("no feed");
        assert!(none.is_empty());
    }
}
