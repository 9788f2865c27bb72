//! `rowproof check`.

use super::{CommonArgs, only, print_json};
use rowproof::Result;
use rowproof::driver::{self, CheckOutcome};
use rowproof::report::{TableLine, definition_text, verdicts_text};

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
            print!("{}", text(&outcome, !self.tables.is_empty()));
        }
        Ok(outcome.exit_code())
    }
}

/// Returns the verdicts for people; `chosen` says that only some tables in scope were asked for.
fn text(outcome: &CheckOutcome, chosen: bool) -> String {
    let tables = if chosen {
        "table in scope that was asked for"
    } else {
        "table in scope"
    };
    if outcome.tables.is_empty() {
        return format!("unproven: the source has no {tables}\n");
    }
    let lines: Vec<TableLine> = outcome
        .tables
        .iter()
        .map(|table| TableLine {
            name: table.name.clone(),
            verdict: table.verdict.clone(),
            counts: table.counts,
            repaired: 0,
            policies: table.policies.clone(),
        })
        .collect();
    let answer = match (outcome.exit_code(), outcome.fence) {
        (0, Some(fence)) if lines.iter().any(TableLine::is_relaxed) => {
            format!(
                "equal, relaxed by the policies above: every {tables} was read on both sides at {fence}"
            )
        }
        (0, Some(fence)) => {
            format!("equal: every {tables} was read on both sides at {fence}")
        }
        (1, _) if !rows_differ(outcome) => "different: only in definitions, see above".to_owned(),
        (1, _) => "different: see `rowproof diff` and `rowproof repair`".to_owned(),
        _ => "unproven: see the reasons above".to_owned(),
    };
    let filters: String = outcome
        .tables
        .iter()
        .filter_map(|table| Some((&table.name, table.filter.as_ref()?)))
        .map(|(name, filter)| format!("{name}: only rows where {filter} take part\n"))
        .collect();
    let tables = outcome.tables.iter().map(|of| (&of.name, &of.definition));
    let views = outcome.views.iter().map(|of| (&of.name, &of.definition));
    let definitions: String = tables
        .chain(views)
        .map(|(name, definition)| definition_text(name, definition))
        .collect();
    format!(
        "{}\n{filters}{definitions}{answer}, in {:.1} s\n",
        verdicts_text(&lines),
        outcome.seconds
    )
}

fn rows_differ(outcome: &CheckOutcome) -> bool {
    let mut tables = outcome.tables.iter();
    tables.any(|table| table.verdict.word() == "different")
}
