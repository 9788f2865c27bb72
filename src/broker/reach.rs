//! Whether the feed covers a load that begins now.

use super::Feed;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Message, physical_ms};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the feed may be silent while its reach is looked up. TiCDC sends a watermark a second, but
/// the locks of a session that died hold it back until they expire, which takes TiDB half a minute.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The age in milliseconds at which a watermark no longer shows that its changefeed lives.
const WATERMARK_AGE_MAX_MS: u64 = 300_000;

/// How many records of a partition are looked through for a watermark before the end, at first.
const LOOK_BACK: i64 = 200;

/// After how long a topic is idle that shows no watermark while others do.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// How long a record is awaited before it is looked whether a topic is idle.
const RECORD_WAIT: Duration = Duration::from_secs(1);

/// What was seen of the feed's watermarks.
struct Seen {
    /// For each partition whether a watermark covers the start of the load.
    covered: Vec<bool>,
    /// For each partition whether what comes later cannot change that.
    passed: Vec<bool>,
    /// The watermarks of each topic behind its end, in the order of the topics.
    live: Vec<BTreeSet<CommitTs>>,
    /// Which topics get none.
    idle: Vec<bool>,
}

impl Feed {
    /// Proves that the feed covers everything that commits after `base`: each partition must hold a
    /// watermark at or below it. Messages up to `ends` were there before `base` was taken.
    ///
    /// A topic that shows none at all, while another one does, has no tables; see `topics`.
    ///
    /// # Errors
    /// If a partition's first watermark is above `base`, or none comes at all, or the topics are not
    /// of one changefeed.
    pub async fn assert_reaches_back(&mut self, base: CommitTs, ends: &[(i64, i64)]) -> Result<()> {
        let mut covered = vec![false; ends.len()];
        let mut look_back = LOOK_BACK;
        loop {
            let starts: Vec<i64> = ends
                .iter()
                .map(|(first, end)| (end - look_back).max(*first))
                .collect();
            self.seek(&self.offsets.with(starts.iter().copied()))
                .await?;
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
        &mut self,
        base: CommitTs,
        ends: &[(i64, i64)],
        covered: &mut Vec<bool>,
    ) -> Result<bool> {
        let topics: Vec<(String, usize)> = self
            .offsets
            .topics()
            .enumerate()
            .flat_map(|(place, (name, of))| vec![(name.to_owned(), place); of.len()])
            .collect();
        let several = self.offsets.topics().count() > 1;
        let mut seen = Seen {
            passed: covered.clone(),
            covered: std::mem::take(covered),
            live: vec![BTreeSet::new(); self.offsets.topics().count()],
            idle: vec![false; self.offsets.topics().count()],
        };
        let began = Instant::now();
        let settled = loop {
            if seen.passed.iter().all(|passed| *passed) && (!several || seen.are_of_one()) {
                break true;
            }
            if began.elapsed() > IDLE_AFTER && several {
                self.idle = seen.pass_idle(&topics);
            }
            if began.elapsed() > SILENCE_MAX {
                break false;
            }
            let Ok(record) = tokio::time::timeout(RECORD_WAIT, self.next()).await else {
                continue;
            };
            let record = record?;
            let number = record.partition;
            for message in &record.messages {
                if let Message::Watermark(ts) = message {
                    let is_live = record.offset >= ends[number].1;
                    seen.covered[number] |= is_alive_at(*ts, base);
                    // The first watermark behind the end settles it: later ones are higher.
                    seen.passed[number] |= is_alive_at(*ts, base) || is_live;
                    if is_live && several {
                        seen.live[topics[number].1].insert(*ts);
                    }
                }
            }
        };
        *covered = seen.covered.clone();
        if !settled && several && seen.passed.iter().all(|passed| *passed) {
            return Err(of_several_changefeeds(&self.to_string()));
        }
        Ok(settled)
    }

    fn uncovered(&self, base: CommitTs, covered: &[bool]) -> Error {
        let missing: Vec<String> = self
            .offsets
            .places()
            .zip(covered)
            .filter(|(_, covered)| !**covered)
            .map(|((topic, partition, _), _)| format!("{topic} partition {partition}"))
            .collect();
        Error::new(
            ErrorKind::Feed,
            format!(
                "the feed does not reach back to the start of the load: no watermark of the five \
                 minutes up to {base} on topic {}",
                missing.join(", ")
            ),
        )
        .advise(format!(
            "create the changefeed first, or look why it sends no watermark: cdc cli changefeed \
             create --sink-uri=\"kafka://BROKER/{}?protocol=open-protocol&partition-num=4\"",
            self.task.topic()
        ))
    }
}

impl Seen {
    /// Tells whether every topic that gets watermarks has shown one that the first of them has
    /// shown too: a changefeed sends the same ones to all of its topics. Two changefeeds may by
    /// chance; it is a sign, and no proof.
    fn are_of_one(&self) -> bool {
        let awake = self.live.iter().zip(&self.idle).filter(|(_, idle)| !**idle);
        let mut live = awake.map(|(seen, _)| seen);
        let Some(first) = live.next() else {
            return false;
        };
        !first.is_empty() && live.all(|seen| !seen.is_disjoint(first))
    }

    /// Passes the partitions of topics that get no watermarks, if another topic is covered, and
    /// returns those topics.
    fn pass_idle(&mut self, topics: &[(String, usize)]) -> Vec<String> {
        let mut of_place = self.live.iter().enumerate();
        let Some((first, _)) = of_place.find(|(_, seen)| !seen.is_empty()) else {
            return Vec::new();
        };
        let is_covered = |place| {
            let of = topics.iter().zip(&self.covered);
            of.filter(|((_, of), _)| *of == place)
                .all(|(_, covered)| *covered)
        };
        if !is_covered(first) {
            return Vec::new();
        }
        let mut idle = Vec::new();
        for (number, (name, place)) in topics.iter().enumerate() {
            if self.live[*place].is_empty() {
                self.covered[number] = true;
                self.passed[number] = true;
                self.idle[*place] = true;
                idle.push(name.clone());
            }
        }
        idle.dedup();
        idle
    }
}

fn of_several_changefeeds(topics: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("{topics}: they have no watermark in common, so they are not of one changefeed"),
    )
    .advise("name only topics of one changefeed: those of its dispatchers, and its default topic")
}

/// Tells whether a watermark shows that the feed covered `base` and was alive then: one that a
/// changefeed left behind which was removed long ago covers nothing.
fn is_alive_at(watermark: CommitTs, base: CommitTs) -> bool {
    watermark <= base && physical_ms(base) - physical_ms(watermark) < WATERMARK_AGE_MAX_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_one_changefeed_have_a_watermark_in_common_and_idle_ones_have_none() {
        let topics = [
            ("a".to_owned(), 0),
            ("b".to_owned(), 1),
            ("c".to_owned(), 2),
        ];
        let mut seen = Seen {
            covered: vec![true, true, false],
            passed: vec![true, true, false],
            live: vec![[5, 6].into(), [6].into(), BTreeSet::new()],
            idle: vec![false; 3],
        };
        assert!(!seen.are_of_one(), "c may still show one");
        assert_eq!(seen.pass_idle(&topics), ["c"]);
        assert!(seen.are_of_one() && seen.covered[2] && seen.passed[2]);
        seen.live[1] = [7].into();
        assert!(!seen.are_of_one());
    }
}
