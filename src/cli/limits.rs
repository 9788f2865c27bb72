//! `rowproof limits`.

use super::{CommonArgs, print_json};
use rowproof::journal::Journal;
use rowproof::report::{LimitRequest, LimitsDocument};
use rowproof::throttle::{LimitName, Side};
use rowproof::{Error, ErrorKind, Result};

/// Show how much may be asked of the two databases, or change it while the migration runs.
///
/// A change is taken up within a second by whatever runs with this state directory, and stays until
/// it is changed again: it outlives a restart, and counts more than the task file.
#[derive(clap::Args, Debug)]
pub struct LimitsCommand {
    #[command(flatten)]
    common: CommonArgs,
    /// The side to change: source or target.
    #[arg(value_name = "SIDE")]
    side: Option<String>,
    /// The limits, for example rows_per_second=5000 bytes_per_second=none connections=2; `none` is no
    /// limit, `file` what the task file says.
    #[arg(value_name = "LIMIT=VALUE")]
    limits: Vec<String>,
}

impl LimitsCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let mut wanted = Vec::new();
        if let Some(side) = &self.side {
            let side = Side::parse(side).ok_or_else(|| usage("SIDE must be source or target"))?;
            if self.limits.is_empty() {
                return Err(usage("say which limit, for example rows_per_second=5000"));
            }
            for text in &self.limits {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                let name = LimitName::parse(name).ok_or_else(|| {
                    usage("the limits are rows_per_second, bytes_per_second and connections")
                })?;
                wanted.push((side, name, LimitRequest::parse(name, value)?));
            }
        }
        let journal = Journal::open(&task.state_dir).await?;
        for (side, name, request) in wanted {
            request.keep(&journal, side, name).await?;
        }
        let document = LimitsDocument::read(&journal, &task.limits).await?;
        if self.common.json {
            print_json(&document);
        } else {
            print!("{}", document.text());
        }
        Ok(0)
    }
}

fn usage(what: &str) -> Error {
    Error::new(ErrorKind::Usage, what)
}
