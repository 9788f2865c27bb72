//! The feed of a task that has begun: its topics must be those that the task has read so far.

use crate::broker::Feed;
use crate::error::Result;
use crate::journal::Journal;
use crate::task::FeedTask;

/// Connects to the feed, and keeps the ids of topics that are new to the task.
///
/// # Errors
/// As [`Feed::connect`], and if a topic is not the one that was read before.
pub(super) async fn own_feed(task: &FeedTask, journal: &Journal) -> Result<Feed> {
    let mut feed = Feed::connect(task).await?;
    feed.assert_same_topics(journal.topic_ids().await?)?;
    journal.keep_topic_ids(feed.topic_ids()).await?;
    Ok(feed)
}
