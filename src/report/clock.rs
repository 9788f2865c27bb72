//! Times in UTC, and how long something took.

use crate::feed::{CommitTs, physical_ms};
use crate::fence::Fence;
use chrono::DateTime;
use serde::Serialize;

/// Returns a time in milliseconds since the epoch as text.
pub fn utc(at_ms: i64) -> String {
    match DateTime::from_timestamp_millis(at_ms) {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        None => "unknown".to_owned(),
    }
}

/// Returns the wall clock of a TiDB timestamp in milliseconds since the epoch.
pub fn wall_ms(ts: CommitTs) -> i64 {
    i64::try_from(physical_ms(ts)).unwrap_or(i64::MAX)
}

/// Returns a span of milliseconds in the two units that say enough.
pub fn duration(span_ms: i64) -> String {
    let span_ms = span_ms.max(0);
    let seconds = span_ms / 1_000;
    match seconds {
        0..10 => format!("{}.{} s", seconds, span_ms % 1_000 / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A fence with the wall clock of its W.
///
/// Both numbers are text, because programs that read JSON numbers as doubles would round them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Moment {
    /// The timestamp on TiDB.
    pub w: String,
    /// The snapshot on OceanBase.
    pub s: String,
    /// The wall clock of `w` in UTC.
    pub time: String,
}

impl From<Fence> for Moment {
    fn from(fence: Fence) -> Self {
        Moment {
            w: fence.w.to_string(),
            s: fence.s.to_string(),
            time: utc(wall_ms(fence.w)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_shows_its_wall_clock() {
        let fence = Fence {
            w: 1_700_000_000_123 << 18 | 5,
            s: 6,
        };
        let moment = Moment::from(fence);
        assert_eq!(moment.time, "2023-11-14 22:13:20.123 UTC");
        assert_eq!(moment.w, fence.w.to_string());
        assert_eq!(utc(i64::MAX), "unknown");
    }

    #[test]
    fn spans_have_units() {
        let spans = [-5, 1_290, 65_000, 3_725_000, 7_300_000, 200_000_000];
        let shown: Vec<String> = spans.into_iter().map(duration).collect();
        assert_eq!(
            shown,
            [
                "0.0 s",
                "1.2 s",
                "65 s",
                "62 min 5 s",
                "2 h 1 min",
                "2 d 7 h"
            ]
        );
    }
}
