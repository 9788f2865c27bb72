//! The page, the JSON documents, the repair script and the metrics, over HTTP.
//!
//! It reads the journal and nothing else, so that it shows the same with and without a running
//! migration; a table that is to be loaded anew and a limit that is changed it only notes there. It shows row values and has no login: it therefore listens on loopback only, answers
//! only to names of this machine (a foreign page could otherwise reach it by rebinding its own
//! name), and allows no inline script, no foreign resource and no framing.

mod api;
mod metrics;
mod page;
mod parameters;
mod response;
mod route;
mod script;

pub use parameters::{Pairs, Parameters, Refusal};

use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::report::Summary;
use crate::throttle::Limits;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long one reading of the journal serves all requests: half the page's interval.
const SUMMARY_LIFETIME: Duration = Duration::from_secs(1);

/// How many repair scripts are made at once: each holds one of the journal's four connections.
const SCRIPTS: usize = 2;

/// How long open requests may still take when the server is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until `stop` is cancelled. The listener is bound by the caller, who can then say in time
/// that the address is taken.
///
/// # Errors
/// If the listener is not on a loopback address.
pub async fn serve(
    listener: TcpListener,
    journal: Journal,
    limits: Limits,
    stop: CancellationToken,
) -> Result<()> {
    let address = listener
        .local_addr()
        .map_err(|error| Error::new(ErrorKind::Usage, format!("the page's address: {error}")))?;
    if !address.ip().is_loopback() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{address} is not a loopback address"),
        )
        .advise("the page shows row values and has no login: listen on 127.0.0.1"));
    }
    let routes = route::routes(Site::new(journal, limits, address.port(), stop.clone()));
    let server = warp::serve(routes)
        .incoming(listener)
        .graceful(stop.clone().cancelled_owned())
        .run();
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        () = server => {}
        () = patience => {}
    }
    Ok(())
}

/// The state of the migration, and when it was read.
type Kept = (Instant, Arc<Summary>);

/// What all requests share.
#[derive(Clone)]
struct Site {
    journal: Journal,
    /// The limits that the task file sets.
    limits: Limits,
    port: u16,
    stop: CancellationToken,
    summary: Arc<Mutex<Option<Kept>>>,
    scripts: Arc<Semaphore>,
}

impl Site {
    fn new(journal: Journal, limits: Limits, port: u16, stop: CancellationToken) -> Site {
        Site {
            journal,
            limits,
            port,
            stop,
            summary: Arc::default(),
            scripts: Arc::new(Semaphore::new(SCRIPTS)),
        }
    }

    /// Returns the state of the migration, read at most once a second however many ask.
    async fn summary(&self) -> Result<Arc<Summary>> {
        let mut kept = self.summary.lock().await;
        if let Some((read, summary)) = kept.as_ref()
            && read.elapsed() < SUMMARY_LIFETIME
        {
            return Ok(summary.clone());
        }
        let summary = Arc::new(Summary::read(&self.journal).await?);
        *kept = Some((Instant::now(), summary.clone()));
        Ok(summary)
    }
}

#[cfg(test)]
mod tests;
