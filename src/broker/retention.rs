//! How long Kafka keeps what the feed sends.

use super::Feed;
use super::client::{METADATA_TIMEOUT, config};
use super::fault::failure;
use crate::error::Result;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use std::time::Duration;

impl Feed {
    /// Returns the shortest time for which a topic keeps its records; none if all keep them for ever,
    /// or the brokers do not tell: rowproof's user may lack the right to describe configurations.
    ///
    /// # Errors
    /// If no client can be made.
    pub async fn retention(&self) -> Result<Option<Duration>> {
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
        let milliseconds = described.into_iter().flatten().filter_map(|topic| {
            let entry = topic.get("retention.ms")?;
            // -1 stands for ever.
            entry.value.as_deref()?.parse::<u64>().ok()
        });
        Ok(milliseconds.min().map(Duration::from_millis))
    }
}
