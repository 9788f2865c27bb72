//! `rowproof precheck`.

use super::{CommonArgs, print_json};
use rowproof::Result;
use rowproof::driver::{Level, precheck};

/// Say what would stop or spoil this migration, each with its fix.
#[derive(clap::Args, Debug)]
pub struct Precheck {
    #[command(flatten)]
    common: CommonArgs,
}

impl Precheck {
    /// Runs the command; the exit code is 2 if a finding makes the migration impossible.
    pub async fn run(self) -> Result<u8> {
        let findings = precheck(&self.common.task()?).await?;
        if self.common.json {
            print_json(&findings);
        } else {
            for finding in &findings {
                println!("{finding}");
            }
        }
        let impossible = findings.iter().any(|finding| finding.level == Level::Error);
        Ok(if impossible { 2 } else { 0 })
    }
}
