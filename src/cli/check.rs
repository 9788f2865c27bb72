//! `rowproof check`.

use super::{CommonArgs, only, print_json};
use rowproof::Result;
use rowproof::driver;

/// Compare whole tables of a running migration at a fence made after this command began.
#[derive(clap::Args, Debug)]
pub struct Check {
    #[command(flatten)]
    common: CommonArgs,
    /// Check only these tables, for example shop.orders or 'shop.*'.
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
}

impl Check {
    /// Runs the command: 0 all equal, 1 something differs, 2 something is unproven.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let outcome = driver::check(&task, only(&self.tables)?.as_ref()).await?;
        if self.common.json {
            print_json(&outcome);
        } else {
            print_json(&outcome);
        }
        Ok(outcome.exit_code())
    }
}
