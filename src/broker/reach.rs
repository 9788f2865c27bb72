//! Whether the feed covers a load that begins now.

use super::Feed;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Message, physical_ms};
use std::time::{Duration, Instant};

/// How long the feed may be silent while its reach is looked up. TiCDC sends a watermark a second, but
/// the locks of a session that died hold it back until they expire, which takes TiDB half a minute.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The age in milliseconds at which a watermark no longer shows that its changefeed lives.
const WATERMARK_AGE_MAX_MS: u64 = 300_000;

/// How many records of a partition are looked through for a watermark before the end, at first.
const LOOK_BACK: i64 = 200;

impl Feed {
    /// Proves that the feed covers everything that commits after `base`: each partition must hold a
    /// watermark at or below it. Messages up to `ends` were there before `base` was taken.
    ///
    /// # Errors
    /// If a partition's first watermark is above `base`, or none comes at all.
    pub async fn assert_reaches_back(&mut self, base: CommitTs, ends: &[(i64, i64)]) -> Result<()> {
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
        &mut self,
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
