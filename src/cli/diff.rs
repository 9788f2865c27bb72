//! `rowproof diff`.

use super::CommonArgs;
use rowproof::Result;
use rowproof::journal::Journal;
use rowproof::report;

/// Show the rows that differ, source and target side by side.
#[derive(clap::Args, Debug)]
pub struct Diff {
    #[command(flatten)]
    common: CommonArgs,
    /// Only the rows of this table, for example shop.orders.
    #[arg(long)]
    table: Option<String>,
}

impl Diff {
    /// Runs the command; the exit code is 1 if any row is known to differ.
    pub async fn run(self) -> Result<u8> {
        let journal = Journal::open(&self.common.task()?.state_dir).await?;
        let table = self.table.as_deref().map(report::table_name).transpose()?;
        let mut out = std::io::stdout().lock();
        let count = if self.common.json {
            report::write_diff_json(&journal, table.as_ref(), &mut out).await?
        } else {
            report::write_diff(&journal, table.as_ref(), &mut out).await?
        };
        Ok(u8::from(count > 0))
    }
}
