//! How long Kafka keeps what the feed sends, and whether that is long enough for a load.

use super::Feed;
use super::client::{METADATA_TIMEOUT, config};
use super::fault::{failure, lost_offset};
use crate::error::Result;
use crate::feed::Offsets;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use std::time::Duration;

/// What the topics keep.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Keeping {
    /// The shortest time for which a topic keeps its records; none if all keep them for ever.
    pub time: Option<Duration>,
    /// The fewest bytes that a topic keeps of a partition; none if none has such a bound.
    pub bytes: Option<u64>,
}

impl Keeping {
    /// The time for which Kafka should keep records: a weekend in which nobody looks.
    pub const ENOUGH: Duration = Duration::from_secs(48 * 3_600);

    /// Tells whether records may be gone before a load is done that has run for `elapsed`: they are kept
    /// for less than two days, or for less than twice as long as the load has taken so far, or for
    /// as many bytes as nobody knows how fast they come.
    pub fn is_short(&self, elapsed: Duration) -> bool {
        let soon = |time: Duration| time < Keeping::ENOUGH || time / 2 < elapsed;
        self.bytes.is_some() || self.time.is_some_and(soon)
    }
}

impl Feed {
    /// Returns what the topics keep; none if the brokers do not tell: rowproof's user may lack the right
    /// to describe configurations.
    ///
    /// # Errors
    /// If no client can be made.
    pub async fn keeping(&self) -> Result<Option<Keeping>> {
        let admin: AdminClient<DefaultClientContext> = config(&self.task)?
            .create()
            .map_err(|error| failure(self.task.topic(), &error))?;
        let topics: Vec<&str> = self.offsets.topics().map(|(name, _)| name).collect();
        let asked = topics.into_iter().map(ResourceSpecifier::Topic);
        let options = AdminOptions::new().request_timeout(Some(METADATA_TIMEOUT));
        let asked: Vec<_> = asked.collect();
        let Ok(described) = admin.describe_configs(&asked, &options).await else {
            return Ok(None);
        };
        let mut keeping = Keeping::default();
        for topic in described {
            let Ok(topic) = topic else {
                return Ok(None);
            };
            // -1 stands for ever.
            let least = |name: &str, known: Option<u64>| {
                let value = topic.get(name).and_then(|entry| entry.value.as_deref());
                let value = value.and_then(|text| text.parse::<u64>().ok());
                value.into_iter().chain(known).min()
            };
            let time = keeping.time.map(|time| time.as_millis() as u64);
            keeping.time = least("retention.ms", time).map(Duration::from_millis);
            keeping.bytes = least("retention.bytes", keeping.bytes);
        }
        Ok(Some(keeping))
    }

    /// Returns the first offset that Kafka holds of each partition.
    ///
    /// # Errors
    /// If that lies behind one of `noted`, from where the feed will be read, or a topic was made anew.
    pub fn firsts(&mut self, noted: &Offsets) -> Result<Vec<i64>> {
        let mut firsts = Vec::new();
        for (topic, partition, offset) in noted.places() {
            let held = self.bounds(topic, partition)?;
            if offset < held.0 {
                return Err(lost_offset(topic, partition, offset, held));
            }
            firsts.push(held.0);
        }
        self.hear_unread()?;
        Ok(firsts)
    }
}

/// Tells whether the beginning of a partition has come more than half the way to the offset that
/// is needed since it was `then`.
pub fn come_near(noted: &Offsets, then: &[i64], now: &[i64]) -> bool {
    let noted = noted.places().map(|(_, _, offset)| offset);
    let mut of = noted.zip(then.iter().zip(now));
    of.any(|(noted, (then, now))| now > then && noted - now < (noted - then) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_a_short_time_or_by_size_is_short() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let kept = |hours: Option<u32>, bytes| Keeping {
            time: hours.map(|hours| HOUR * hours),
            bytes,
        };
        assert!(!kept(None, None).is_short(HOUR * 1_000));
        assert!(kept(Some(24), None).is_short(Duration::ZERO));
        assert!(!kept(Some(168), None).is_short(HOUR * 80));
        assert!(kept(Some(168), None).is_short(HOUR * 90));
        assert!(kept(None, Some(1 << 40)).is_short(Duration::ZERO));
    }

    #[test]
    fn a_beginning_that_moves_is_near_when_half_the_way_is_gone() {
        let noted = Offsets::from(vec![100, 0]);
        assert!(!come_near(&noted, &[20, 0], &[59, 0]));
        assert!(come_near(&noted, &[20, 0], &[61, 0]));
        assert!(
            come_near(&noted, &[100, 0], &[101, 0]),
            "it is lost already"
        );
    }
}
