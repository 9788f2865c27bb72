//! Keeping the limits as they are wanted now, and looking how both sides answer.

use super::status::StatusBoard;
use crate::error::Result;
use crate::journal::Journal;
use crate::task::Task;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often limits are read and sides are looked at; backing off counts in these.
const BEAT: Duration = Duration::from_secs(1);

/// Sets the limits of this process: those of the task file, with what was changed since.
///
/// # Errors
/// If the journal cannot be read.
pub async fn set_limits(task: &Task, journal: &Journal) -> Result<()> {
    let changes = journal.limit_changes().await?;
    task.throttle.set(&task.limits.with(&changes));
    Ok(())
}

/// Takes up changed limits and backs off where a side has slowed down, until it is told to stop; a
/// migration shows it in its status.
pub async fn keep_pace(
    task: Task,
    journal: Journal,
    status: Option<StatusBoard>,
    stop: CancellationToken,
) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        if let Err(error) = set_limits(&task, &journal).await {
            tracing::warn!(error = %error.message(), "the limits could not be read");
        }
        let (source, target) = (task.throttle.source.look(), task.throttle.target.look());
        if let Some(status) = &status {
            status.update(|status| {
                status.source = source;
                status.target = target;
            });
        }
    }
}
