//! `rowproof resync`.

use super::{CommonArgs, print_json};
use rowproof::journal::Journal;
use rowproof::{Error, ErrorKind, Result, report};
use serde::Serialize;

/// Load tables anew while the others are followed, for example those that are held.
///
/// The migration that runs takes it up within a second, or else the next one. What is on the target
/// of these tables is cleared first; a table whose definition has changed is dropped and made anew,
/// which needs DROP. Until a table has reached a fence again it is unproven.
#[derive(clap::Args, Debug)]
pub struct Resync {
    #[command(flatten)]
    common: CommonArgs,
    /// The tables, for example shop.orders; all that are held or stopped if none is named.
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
}

/// The answer with --json.
#[derive(Serialize)]
struct Document {
    requested: Vec<String>,
}

impl Resync {
    /// Runs the command.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        if task.feed.is_none() {
            let what = "a task without [feed] follows nothing that a table could join";
            return Err(Error::new(ErrorKind::Usage, what));
        }
        let mut names = Vec::new();
        for text in &self.tables {
            let name = report::table_name(text)?;
            if !task.scope.contains(&name) {
                let what = format!("{name} is not in scope");
                return Err(Error::new(ErrorKind::Usage, what)
                    .advise("compare it with include and exclude under [tables]"));
            }
            names.push(name);
        }
        let journal = Journal::open(&task.state_dir).await?;
        let requested = journal.request_bases(&names).await?;
        let requested: Vec<String> = requested.iter().map(ToString::to_string).collect();
        if self.common.json {
            print_json(&Document { requested });
        } else if requested.is_empty() {
            println!("no table is held or stopped");
        } else {
            println!("to be loaded anew: {}", requested.join(", "));
        }
        Ok(0)
    }
}
