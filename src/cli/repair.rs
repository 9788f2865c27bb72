//! `rowproof repair`.

use super::{CommonArgs, print_json};
use rowproof::journal::Journal;
use rowproof::{Error, ErrorKind, Result, driver, report};
use std::path::PathBuf;

/// Print the SQL that mends the target, or apply it.
///
/// Printed statements are guarded by the target values that were seen. With --apply the rows are
/// read again from both sides while the applier is locked out. A repair is no verification: run
/// `rowproof check` afterwards.
#[derive(clap::Args, Debug)]
pub struct Repair {
    #[command(flatten)]
    common: CommonArgs,
    /// Only the rows of this table, for example shop.orders.
    #[arg(long)]
    table: Option<String>,
    /// Write the SQL to this file instead of stdout.
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    output: Option<PathBuf>,
    /// Bring the rows of the target to what the source holds now.
    #[arg(long)]
    apply: bool,
}

impl Repair {
    /// Runs the command.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let table = self.table.as_deref().map(report::table_name).transpose()?;
        if self.apply {
            let outcome = driver::apply_repairs(&task, table.as_ref()).await?;
            if self.common.json {
                print_json(&outcome);
            } else {
                println!(
                    "{} rows repaired, {} no longer differed. They are unproven until \
                     `rowproof check` reads them.",
                    outcome.repaired, outcome.already_equal
                );
            }
            if outcome.stopped_tables > 0 {
                eprintln!("{} stopped tables were left alone", outcome.stopped_tables);
            }
            return Ok(0);
        }
        let journal = Journal::open(&task.state_dir).await?;
        match &self.output {
            None => {
                let mut out = std::io::stdout().lock();
                report::write_repair_script(&journal, table.as_ref(), &mut out).await?;
            }
            Some(path) => {
                let file = std::fs::File::create(path).map_err(|error| {
                    Error::new(ErrorKind::Usage, format!("{}: {error}", path.display()))
                })?;
                let mut out = std::io::BufWriter::new(file);
                report::write_repair_script(&journal, table.as_ref(), &mut out).await?;
                eprintln!("written: {}", path.display());
            }
        }
        Ok(0)
    }
}
