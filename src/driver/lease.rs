//! One writer at a time (INV-9).

use super::link::{Link, Retries};
use crate::database::{Holder, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::task::Task;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the holder shows that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// How long a heartbeat is watched before its holder is taken for dead.
const WATCH: Duration = Duration::from_secs(8);

/// The lock of a state directory: the kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Locks a state directory.
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if another process on this machine holds it.
    pub fn take(dir: &Path) -> Result<StateLock> {
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| {
                Error::new(
                    ErrorKind::Usage,
                    format!("cannot open {}: {error}", path.display()),
                )
            })?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::new(
                ErrorKind::Lease,
                format!("another rowproof process migrates with {}", dir.display()),
            )
            .advise("let it work, or stop it first; rowproof check and the page may run beside it")
        })?;
        Ok(StateLock { _file: file })
    }
}

/// The lease of a task on the target.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// The number of this take-over; every writing transaction names it.
    pub epoch: u64,
}

impl Lease {
    /// Takes the lease, waiting for a holder whose heartbeat has stopped.
    ///
    /// Who holds the lock of the same state directory on the same host knows that an earlier holder
    /// from there is dead, and need not wait.
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if the holder lives.
    pub async fn take(
        target: &mut Link,
        record: &Record,
        state_id: &str,
        slots: u32,
    ) -> Result<Lease> {
        let name = holder_name(state_id);
        let session = target.session().await?;
        let before = record.holder(session).await?;
        if let Some(before) = &before
            && !is_own(&before.name, state_id)
        {
            tracing::info!(holder = %before.name, "watching whether the holder of the lease lives");
            tokio::time::sleep(WATCH).await;
            let now = record.holder(session).await?;
            if now.as_ref() != Some(before) {
                return Err(held(now.as_ref().unwrap_or(before)));
            }
        }
        let epoch = record
            .take_lease(session, before.as_ref(), &name, slots)
            .await?;
        Ok(Lease { epoch })
    }

    /// Shows that this process lives until it is told to stop.
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if another instance took over.
    pub async fn keep(self, task: Task, record: Record, stop: CancellationToken) -> Result<()> {
        let mut link = Link::target(&task);
        let mut retries = Retries::new();
        loop {
            let beat = async { record.beat(link.session().await?, self.epoch).await };
            match beat.await {
                Ok(()) => retries = Retries::new(),
                Err(error) => {
                    link.reset();
                    retries.pause(error).await?;
                    continue;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }
}

fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn holder_name(state_id: &str) -> String {
    format!(
        "host {} pid {} state {state_id}",
        host(),
        std::process::id()
    )
}

fn is_own(name: &str, state_id: &str) -> bool {
    name.starts_with(&format!("host {} pid ", host())) && name.ends_with(state_id)
}

fn held(holder: &Holder) -> Error {
    Error::new(
        ErrorKind::Lease,
        format!("INV-9: another instance holds this task: {}", holder.name),
    )
    .advise("stop that instance first, or give this task another name in its task file")
}
