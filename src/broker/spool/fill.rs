//! Filling the spool from Kafka.

use super::writer::Writer;
use super::{Filling, Spool};
use crate::broker::Feed;
use crate::error::{ErrorKind, Result};
use crate::failpoint;
use crate::feed::Offsets;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a record is awaited before what came is made durable.
const WAIT: Duration = Duration::from_millis(100);

/// What may be lost to a death at most: it is read again, if Kafka still has it.
const SYNC_EVERY: Duration = Duration::from_millis(500);
const SYNC_BYTES: u64 = 8 << 20;

/// How often it is looked how far the ends of the partitions are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads the feed into the spool for as long as it is needed: from where the spool ends, or from
/// these offsets if there is none. `told` hears of what was made durable.
///
/// # Errors
/// If Kafka no longer holds what comes next, or the disk has no room.
pub async fn fill(
    mut feed: Feed,
    spool: &Spool,
    filling: &Filling,
    begin: &Offsets,
    told: impl Fn(u64),
) -> Result<()> {
    let end = spool.bounds()?.map(|(_, end)| end);
    let mut at = end.unwrap_or_else(|| begin.clone());
    at = at.named(feed.topic());
    feed.seek(&at).await?;
    let mut writer = Writer::open(spool, &at)?;
    failpoint::pass("spool-begun");
    let mut last_sync = Instant::now();
    let mut last_look = Instant::now();
    let mut ends = Vec::new();
    while filling.is_needed() {
        let next = feed.next_raw(|raw| writer.append(raw));
        match tokio::time::timeout(WAIT, next).await {
            Ok(appended) => appended?,
            // Looked for only when the feed is silent or below, so that nothing waits for it.
            Err(_) => last_sync = last_sync.checked_sub(SYNC_EVERY).unwrap_or(last_sync),
        }
        if last_sync.elapsed() >= SYNC_EVERY || writer.unsynced() >= SYNC_BYTES {
            tokio::task::block_in_place(|| writer.sync(feed.offsets()))?;
            last_sync = Instant::now();
        }
        if last_look.elapsed() >= LOOK_EVERY {
            if feed.look_for_topics()? {
                writer.begin_file(feed.offsets())?;
            }
            let is_current = is_at(&feed, &ends);
            filling
                .shared
                .is_current
                .store(is_current, Ordering::Relaxed);
            ends = ends_of(&feed).await?;
            told(spool.bytes()?);
            last_look = Instant::now();
        }
    }
    writer.finish(feed.offsets())?;
    failpoint::pass("spool-ended");
    Ok(())
}

/// Tells whether everything was read that lay before these ends.
fn is_at(feed: &Feed, ends: &[i64]) -> bool {
    let at = feed.offsets().places().map(|(_, _, offset)| offset);
    !ends.is_empty() && at.zip(ends).all(|(at, end)| at >= *end)
}

/// Asks for the ends of the partitions; none if the brokers do not answer now.
async fn ends_of(feed: &Feed) -> Result<Vec<i64>> {
    match feed.ends().await {
        Ok(ends) => Ok(ends.into_iter().map(|(_, end)| end).collect()),
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
