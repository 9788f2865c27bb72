//! A feed that stands still: which partitions it waits for, and since when.

use super::status::StatusBoard;
use crate::engine::Follow;
use crate::feed::CommitTs;
use crate::journal::now_ms;
use crate::report::utc;
use std::time::{Duration, Instant};

/// After how long without a step of the watermark the feed stands still: TiCDC sends one a second.
const STILL_AFTER: Duration = Duration::from_secs(10);

/// Watches how far the feed is complete.
#[derive(Debug)]
pub(super) struct Standstill {
    resolved: CommitTs,
    moved: Instant,
    moved_ms: i64,
    is_told: bool,
}

impl Standstill {
    /// Begins to watch.
    pub(super) fn new() -> Standstill {
        Standstill {
            resolved: 0,
            moved: Instant::now(),
            moved_ms: now_ms(),
            is_told: false,
        }
    }

    /// Shows in the status what the feed waits for, as long as it stands still.
    pub(super) fn look(&mut self, follow: &Follow, status: &StatusBoard) {
        if follow.resolved() != self.resolved || follow.is_behind() {
            if std::mem::take(&mut self.is_told) {
                status.update(|status| status.waiting_for = None);
            }
            self.resolved = follow.resolved();
            (self.moved, self.moved_ms) = (Instant::now(), now_ms());
        } else if self.moved.elapsed() >= STILL_AFTER {
            let reason = reason(&follow.slow_partitions(), self.moved_ms);
            if !self.is_told {
                tracing::warn!(%reason, "the feed stands still");
            }
            self.is_told = true;
            status.update(|status| {
                status.waiting_for.get_or_insert(reason);
            });
        }
    }
}

fn reason(slow: &[(String, usize)], since_ms: i64) -> String {
    let since = utc(since_ms);
    if slow.is_empty() {
        return format!(
            "a watermark, which has come on no partition since {since}: see that the changefeed \
             runs and that Kafka takes what it sends"
        );
    }
    let names: Vec<String> = slow
        .iter()
        .map(|(topic, partition)| format!("topic {topic} partition {partition}"))
        .collect();
    format!(
        "a watermark on {}, where none has come since {since} while the others go on: see what the \
         changefeed says, and the partition's leader",
        names.join(", ")
    )
}
