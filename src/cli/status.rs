//! `rowproof status`.

use super::{CommonArgs, print_json};
use rowproof::journal::Journal;
use rowproof::{Result, report};

/// Say whether it is safe to cut over, what differs, and what the migration does now.
///
/// It reads the state directory alone, so that it also answers when no migration runs.
#[derive(clap::Args, Debug)]
pub struct StatusCommand {
    #[command(flatten)]
    common: CommonArgs,
}

impl StatusCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<u8> {
        let journal = Journal::open(&self.common.task()?.state_dir).await?;
        let summary = report::Summary::read(&journal).await?;
        if self.common.json {
            print_json(&summary);
        } else {
            print!("{summary}");
        }
        Ok(0)
    }
}
