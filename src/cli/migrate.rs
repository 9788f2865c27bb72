//! `rowproof migrate`.

use super::{CommonArgs, stop_on_signal};
use clap::ValueEnum;
use rowproof::driver::{self, Until};
use rowproof::journal::Journal;
use rowproof::{Result, report};

/// Copy schema and rows, follow the feed, prove every step, and serve the page.
///
/// It goes on until it is stopped. Run it again after any crash: it needs no flag and loses nothing.
#[derive(clap::Args, Debug)]
pub struct Migrate {
    #[command(flatten)]
    common: CommonArgs,
    /// Stop when this is reached.
    #[arg(long, value_enum)]
    until: Option<UntilArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UntilArg {
    /// The tables are made on the target.
    Schema,
    /// Every table is loaded and proven.
    Load,
    /// Every change is proven that was committed when following began.
    CaughtUp,
}

impl Migrate {
    /// Runs the command; the exit code says whether anything differs or is unproven.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let until = self.until.map(|until| match until {
            UntilArg::Schema => Until::Schema,
            UntilArg::Load => Until::Load,
            UntilArg::CaughtUp => Until::CaughtUp,
        });
        let outcome = driver::migrate(&task, until, stop_on_signal()?).await?;
        if self.common.json {
            super::print_json(&outcome.tables);
        } else {
            let journal = Journal::open(&task.state_dir).await?;
            print!("{}", report::Summary::read(&journal).await?);
        }
        if until == Some(Until::Schema) {
            return Ok(0);
        }
        let any = |word: &str| {
            outcome
                .tables
                .iter()
                .any(|table| table.verdict.word() == word)
        };
        Ok(if any("different") {
            1
        } else {
            u8::from(any("unproven")) * 2
        })
    }
}
