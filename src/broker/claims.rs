//! The storage into which TiCDC puts messages that are too large for Kafka (claim check).

use super::{FeedRecord, choose_cryptography};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Claim, Message, RECORD_BYTES_MAX, RowChange, decode_claim};
use crate::task::ClaimCheck;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use std::path::Path as Directory;
use std::time::Duration;

/// How often a store is asked again that does not answer.
const TRIES: usize = 8;

/// How long a store may fail to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory or bucket that holds large messages.
#[derive(Debug)]
pub struct ClaimStore {
    store: Box<dyn ObjectStore>,
    /// What stands before the names of the files in a bucket.
    prefix: Path,
    /// The address, for messages.
    url: String,
}

impl ClaimStore {
    /// Opens the storage that the task names.
    ///
    /// # Errors
    /// If the directory does not exist, or the settings cannot be right.
    pub fn open(task: &ClaimCheck) -> Result<ClaimStore> {
        let unusable = |detail: &str| {
            let what = format!("[feed.claim_check] url {}: {detail}", task.url);
            Error::new(ErrorKind::Usage, what)
                .advise("take claim-check-storage-uri of the changefeed, without its parameters")
        };
        let (store, prefix): (Box<dyn ObjectStore>, _) = match task.url.strip_prefix("s3://") {
            None => {
                let directory = task.url.strip_prefix("file://").unwrap_or(&task.url);
                let store = LocalFileSystem::new_with_prefix(Directory::new(directory))
                    .map_err(|_| unusable("it is no directory that can be read here"))?;
                (Box::new(store), Path::default())
            }
            Some(place) => {
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                let store = s3(bucket, task).map_err(|_| unusable("it is no S3 address"))?;
                let prefix = Path::parse(prefix).map_err(|_| unusable("it has a wrong prefix"))?;
                (Box::new(store), prefix)
            }
        };
        let url = task.url.clone();
        Ok(ClaimStore { store, prefix, url })
    }

    /// Looks whether the storage answers. Whether its files may be read shows with the first of them:
    /// who may read each file need not be allowed to ask for others.
    ///
    /// # Errors
    /// If it does not.
    pub async fn look(&self) -> Result<()> {
        let name = "rowproof-precheck";
        match self.store.head(&self.prefix.clone().join(name)).await {
            Ok(_)
            | Err(
                object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. },
            ) => Ok(()),
            Err(error) => Err(self.failure(name, &error)),
        }
    }

    /// Replaces the claims of a record by the rows of their files.
    ///
    /// What is left is a row of which only the handle key is known, which the source is asked for:
    /// where the file is gone, because a file's life is the operator's to set, and where the files of a
    /// record are more than is held at once (INV-8).
    ///
    /// # Errors
    /// If a file is damaged, or the storage does not answer.
    pub async fn redeem(
        &self,
        record: &mut FeedRecord,
        wanted: impl Fn(&RowChange) -> bool,
    ) -> Result<()> {
        for message in &mut record.messages {
            let Message::Claim(claim) = &*message else {
                continue;
            };
            let room = RECORD_BYTES_MAX.saturating_sub(record.bytes);
            if !wanted(&claim.row) {
                continue;
            }
            let at = format!("partition {} offset {}", record.partition, record.offset);
            let row = self.fetch(claim, room).await;
            if let Some(row) = row.map_err(|error| error.at(at))? {
                record.bytes += row.byte_len();
                *message = Message::Row(row);
            }
        }
        Ok(())
    }

    /// Fetches the file of a claim; none if it is gone, or too large for the room.
    async fn fetch(&self, claim: &Claim, room: usize) -> Result<Option<RowChange>> {
        // The location is an address as TiCDC sees it, and rowproof may see the storage elsewhere:
        // TiCDC puts every file right below the address that it is given.
        let name = claim.location.rsplit('/').next().unwrap_or_default();
        let path = self.prefix.clone().join(name);
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                tracing::warn!(url = %self.url, name, "a claimed message is gone: its row is read from the source");
                return Ok(None);
            }
            Err(error) => return Err(self.failure(name, &error)),
        };
        // A row is smaller than its file, which holds it in base64.
        if found.meta.size / 4 * 3 > room as u64 {
            tracing::info!(
                name,
                "a claimed message is too large: its row is read from the source"
            );
            return Ok(None);
        }
        let file = found.bytes().await;
        let file = file.map_err(|error| self.failure(name, &error))?;
        let row = decode_claim(claim, &file);
        row.map(Some).map_err(|what| {
            Error::new(
                ErrorKind::Feed,
                format!("claim {name} in {}: {what}", self.url),
            )
            .advise(
                "restore the file, or leave [feed.claim_check] out of the task file: then the rows \
                 are read from the source",
            )
        })
    }

    fn failure(&self, name: &str, error: &object_store::Error) -> Error {
        // Errors of a store may quote what it answered: only the kind is told (INV-7).
        let (kind, detail) = match error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                (ErrorKind::Refused, "the storage refuses access")
            }
            _ => (ErrorKind::Unavailable, "the storage does not answer"),
        };
        Error::new(kind, format!("claim {name} in {}: {detail}", self.url)).advise(
            "check [feed.claim_check], and the credentials in AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY",
        )
    }
}

fn s3(bucket: &str, task: &ClaimCheck) -> object_store::Result<object_store::aws::AmazonS3> {
    choose_cryptography();
    let retry = RetryConfig {
        max_retries: TRIES,
        retry_timeout: PATIENCE,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry);
    if let Some(endpoint) = &task.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &task.region {
        builder = builder.with_region(region);
    }
    builder.build()
}
