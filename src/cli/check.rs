//! `rowproof check`.

use super::{CommonArgs, only, print_json};
use rowproof::Result;
use rowproof::driver::{self, CheckOutcome};
use rowproof::fence::Fence;
use rowproof::report::{TableLine, definition_text, verdicts_text};

/// Compare whole tables of a running migration at a fence made after this command began.
#[derive(clap::Args, Debug)]
pub struct Check {
    #[command(flatten)]
    common: CommonArgs,
    /// Check only these tables, for example shop.orders or 'shop.*'.
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Read the target alone and compare it with the ledgers that the migration keeps; where there is
    /// none, or it does not fit, read both sides.
    #[arg(long)]
    ledger: bool,
}

impl Check {
    /// Runs the command: 0 all equal, 1 something differs, 2 something is unproven.
    pub async fn run(self) -> Result<u8> {
        let task = self.common.task()?;
        let only = only(&self.tables)?;
        let outcome = match self.ledger {
            true => driver::check_by_ledger(&task, only.as_ref()).await?,
            false => driver::check(&task, only.as_ref()).await?,
        };
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
    let by_ledger = outcome.by_ledger();
    let answer = match (outcome.exit_code(), outcome.fence) {
        (0, Some(fence)) if by_ledger > 0 => ledger_answer(outcome, by_ledger, fence),
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
    let no_ledger: String = outcome
        .tables
        .iter()
        .filter_map(|table| Some((&table.name, table.no_ledger.as_ref()?)))
        .map(|(name, why)| format!("{name}: both sides were to be read: {why}\n"))
        .collect();
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
        "{}\n{filters}{no_ledger}{definitions}{answer}, in {:.1} s\n",
        verdicts_text(&lines),
        outcome.seconds
    )
}

fn ledger_answer(outcome: &CheckOutcome, by_ledger: usize, fence: Fence) -> String {
    let read = outcome.tables.len() - by_ledger;
    let rest = match read {
        0 => String::new(),
        read => format!(", and {} by reading both sides", number_of(read)),
    };
    format!(
        "equal: the target holds what the ledgers of {} say at {fence}{rest}; an event that the feed \
         lost only a check of both sides can see",
        number_of(by_ledger)
    )
}

fn number_of(tables: usize) -> String {
    match tables {
        1 => "1 table".to_owned(),
        tables => format!("{tables} tables"),
    }
}

fn rows_differ(outcome: &CheckOutcome) -> bool {
    let mut tables = outcome.tables.iter();
    tables.any(|table| table.verdict.word() == "different")
}
