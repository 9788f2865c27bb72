//! Where following takes up what is asked of it: fresh bases for tables.

use super::follow::Following;
use super::fresh_base::{BaseEnd, FreshBases};
use crate::engine::Follow;
use crate::error::{ErrorKind, Result};
use crate::schema::TableName;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a fresh base is asked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The fresh bases that are asked for, and those that are being loaded beside following.
#[derive(Debug)]
pub struct BaseDesk {
    looked: Option<Instant>,
    /// Whether there was something to do when it was looked.
    called: bool,
    /// Tables whose bases a crash interrupted.
    begun: Vec<TableName>,
    loading: Option<JoinHandle<Result<Vec<BaseEnd>>>>,
    stop: CancellationToken,
}

impl BaseDesk {
    /// Begins with the bases that a crash interrupted.
    pub fn new(begun: Vec<TableName>, stop: &CancellationToken) -> BaseDesk {
        BaseDesk {
            looked: None,
            called: false,
            begun,
            loading: None,
            stop: stop.child_token(),
        }
    }

    /// Tells whether there is something to take up, for which no batch may be under way.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn is_called(&mut self, following: &Following) -> Result<bool> {
        if !self.called && self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            self.called = match &self.loading {
                Some(loading) => loading.is_finished(),
                None => {
                    let asked = following.journal.base_requests().await?;
                    !self.begun.is_empty() || !asked.is_empty()
                }
            };
        }
        Ok(self.called)
    }

    /// Takes up what it is called for, and tells whether a base is loaded, so that following must begin
    /// again from there.
    ///
    /// # Errors
    /// If the work on a base is stopped, or the lease lost.
    pub async fn look(&mut self, following: &Following, follow: &mut Follow) -> Result<bool> {
        self.called = false;
        if self.loading.is_none() {
            return self.take_up(following, follow).await.map(|()| false);
        }
        let ends = match self.finish().await {
            // Following is about to end too.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            ends => ends?,
        };
        for end in &ends {
            if let Some(failure) = &end.failure {
                follow.note_base(&end.name, Some(failure));
                following.status.end_base(&end.name);
            }
        }
        Ok(ends.iter().any(|end| end.failure.is_none()))
    }

    /// Stops the tables that are asked for, and begins with them when all of them are.
    async fn take_up(&mut self, following: &Following, follow: &mut Follow) -> Result<()> {
        let mut asked: BTreeSet<TableName> = self.begun.iter().cloned().collect();
        for name in following.journal.base_requests().await? {
            if following.task.scope.contains(&name) {
                asked.insert(name);
            } else {
                following.journal.end_request(&name).await?;
                following.status.end_base(&name);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        following.status.begin_bases(&asked);
        let tables = follow.tables();
        let is_live = |name: &&TableName| tables.get(*name).is_some_and(|of| of.stopped.is_none());
        let live: Vec<TableName> = asked.iter().filter(is_live).cloned().collect();
        if !live.is_empty() {
            live.iter().for_each(|name| follow.give_up(name));
            return Ok(());
        }
        asked.iter().for_each(|name| follow.note_base(name, None));
        self.begun.clear();
        let bases = FreshBases {
            task: following.task.clone(),
            record: following.record.clone(),
            journal: following.journal.clone(),
            digest_key: following.digest_key.clone(),
            lease: following.lease,
            spooling: following.spooling.clone(),
            stop: self.stop.clone(),
        };
        self.loading = Some(tokio::spawn(bases.run(asked.into_iter().collect())));
        Ok(())
    }

    async fn finish(&mut self) -> Result<Vec<BaseEnd>> {
        match self.loading.take() {
            Some(loading) => loading
                .await
                .map_err(|_| super::migrate::panicked("the load of a fresh base"))?,
            None => Ok(Vec::new()),
        }
    }

    /// Ends the work; what is recorded of it is gone on with later.
    ///
    /// # Errors
    /// If it had failed for another reason.
    pub async fn close(mut self) -> Result<()> {
        self.stop.cancel();
        match self.finish().await {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
