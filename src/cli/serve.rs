//! `rowproof serve`.

use super::{CommonArgs, stop_on_signal};
use rowproof::journal::Journal;
use rowproof::{Error, ErrorKind, Result, web};

/// Show the page from the state directory alone, when no migration runs.
#[derive(clap::Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    common: CommonArgs,
}

impl Serve {
    /// Runs the command until it is stopped.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let journal = Journal::open(&task.state_dir).await?;
        let listener = tokio::net::TcpListener::bind(task.listen)
            .await
            .map_err(|error| {
                Error::new(
                    ErrorKind::Usage,
                    format!("[web] listen = \"{}\": {error}", task.listen),
                )
            })?;
        eprintln!("page: http://{}", task.listen);
        web::serve(listener, journal, task.limits, stop_on_signal()?).await?;
        Ok(0)
    }
}
