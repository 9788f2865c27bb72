//! The ids of the feed's topics, by which one that was made anew is noticed.

use super::{Journal, failure};
use crate::error::Result;
use std::collections::BTreeMap;

impl Journal {
    /// Keeps the ids of topics; of those that are known already the first one stays.
    pub async fn keep_topic_ids(&self, ids: &BTreeMap<String, String>) -> Result<()> {
        for (topic, id) in ids {
            sqlx::query("INSERT OR IGNORE INTO feed_topic VALUES (?, ?)")
                .bind(topic)
                .bind(id)
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }

    /// Returns the ids of topics.
    pub async fn topic_ids(&self) -> Result<BTreeMap<String, String>> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT topic, id FROM feed_topic")
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        Ok(rows.into_iter().collect())
    }

    /// Forgets the ids of topics: a task begins.
    pub async fn forget_topic_ids(&self) -> Result<()> {
        sqlx::query("DELETE FROM feed_topic")
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }
}
