//! Connections that come back after passing faults.

use crate::database::{Server, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Endpoint, Task};
use crate::throttle::Gate;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// How often work that met a passing fault is tried again, one after the other.
const TRIES: usize = 8;

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A connection to one side that is made when it is needed, and anew after a fault.
#[derive(Debug)]
pub struct Link {
    endpoint: Endpoint,
    server: Server,
    gate: Arc<Gate>,
    session: Option<Session>,
    was_connected: bool,
}

impl Link {
    /// Prepares a link to the source of a task.
    pub fn source(task: &Task) -> Link {
        Link {
            endpoint: task.source.clone(),
            server: Server::TiDb,
            gate: Arc::clone(&task.throttle.source),
            session: None,
            was_connected: false,
        }
    }

    /// Prepares a link to the target of a task.
    pub fn target(task: &Task) -> Link {
        Link {
            endpoint: task.target.clone(),
            server: Server::OceanBase,
            gate: Arc::clone(&task.throttle.target),
            session: None,
            was_connected: false,
        }
    }

    /// Returns the session, connecting if there is none, or only one whose read was cut.
    ///
    /// What the server refuses now though it was content before may be a password or a certificate
    /// that is being changed: that is tried again for a while, with the files as they are then.
    pub async fn session(&mut self) -> Result<&mut Session> {
        if self.session.as_ref().is_some_and(Session::is_abandoned) {
            self.reset();
        }
        if self.session.is_none() {
            let connected = Session::connect(&self.endpoint, self.server).await;
            let session = connected.map_err(|error| match error.kind() {
                ErrorKind::Refused | ErrorKind::Usage if self.was_connected => {
                    error.with_kind(ErrorKind::Unavailable)
                }
                _ => error,
            })?;
            self.session = Some(session.behind(&self.gate));
            self.was_connected = true;
        }
        Ok(self.session.as_mut().expect("it was made just now"))
    }

    /// Closes the session, so that the next use makes a new one: after any error and after any
    /// statement that was abandoned.
    pub fn reset(&mut self) {
        self.session = None;
    }
}

/// A connection to each side, of one worker.
#[derive(Debug)]
pub struct Links {
    /// The link to the source.
    pub source: Link,
    /// The link to the target.
    pub target: Link,
}

impl Links {
    /// Prepares links to both sides of a task.
    pub fn new(task: &Task) -> Links {
        Links {
            source: Link::source(task),
            target: Link::target(task),
        }
    }

    /// Prepares links for each worker of a task and connects them, all at once. What cannot be
    /// connected now is left for the worker to try again.
    pub async fn connected(task: &Task) -> Vec<Links> {
        let connect = |mut links: Links| async move {
            let _ = tokio::join!(links.source.session(), links.target.session());
            links
        };
        join_all((0..task.workers).map(|_| connect(Links::new(task)))).await
    }

    /// Does work that may be done again from its beginning, and after a passing fault does so.
    ///
    /// # Errors
    /// With what cannot pass, or was met too often.
    pub async fn retried<T>(
        &mut self,
        what: &str,
        mut work: impl AsyncFnMut(&mut Links) -> Result<T>,
    ) -> Result<T> {
        let mut retries = Retries::new();
        loop {
            match work(self).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    self.reset();
                    retries.pause(error.at(what)).await?;
                }
            }
        }
    }

    /// Closes both sessions.
    pub fn reset(&mut self) {
        self.source.reset();
        self.target.reset();
    }

    /// Returns both sessions.
    pub async fn sessions(&mut self) -> Result<(&mut Session, &mut Session)> {
        Ok((self.source.session().await?, self.target.session().await?))
    }
}

/// Counts the tries of one piece of work.
#[derive(Debug)]
pub struct Retries {
    pauses: ExponentialBackoff,
}

impl Retries {
    /// Starts counting.
    pub fn new() -> Retries {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(PAUSE_MAX)
            .with_max_times(TRIES)
            .with_jitter()
            // Or else all workers would pause for the same times.
            .with_jitter_seed(fastrand::u64(..))
            .build();
        Retries { pauses }
    }

    /// Pauses before the next try, or gives the error back if it cannot pass or was met too often.
    pub async fn pause(&mut self, error: Error) -> Result<()> {
        if !error.kind().is_retryable() {
            return Err(error);
        }
        let Some(pause) = self.pauses.next() else {
            return Err(error);
        };
        tracing::warn!(error = %error.message(), pause_ms = pause.as_millis(), "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
