//! Is it safe to cut over?

use super::clock::duration;
use super::number;
use super::table::TableLine;
use crate::journal::{Phase, Status};
use crate::proof::{How, Verdict};
use serde::Serialize;

/// The age of the newest proven fence beyond which the target is too far behind to cut over: a
/// healthy migration makes and proves a fence every few seconds.
const PROVEN_AGE_MAX_MS: i64 = 60_000;

/// How many tables are named for one reason; the table of verdicts names all.
const NAMED: usize = 5;

/// The answer, with all that speaks against it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// Whether every table is equal and the feed is live.
    pub safe_to_cut_over: bool,
    /// What the equality rests on, when it is safe.
    pub because: String,
    /// What that equality cannot see, when it is safe.
    pub caution: Option<String>,
    /// Why it is not safe, the gravest first.
    pub reasons: Vec<String>,
}

impl Answer {
    /// Returns the answer that this state allows.
    ///
    /// It is yes only if every table in scope is equal and a live migration has proven a fence
    /// lately. What is unproven is never taken for equal (INV-2).
    pub fn of(status: &Status, live: bool, now_ms: i64, tables: &[TableLine]) -> Answer {
        let mut reasons = table_reasons(status, tables);
        reasons.extend(feed_reasons(status, live, now_ms));
        let safe_to_cut_over = reasons.is_empty();
        let (because, caution) = match safe_to_cut_over {
            true => (because(tables), caution(tables)),
            false => (String::new(), None),
        };
        Answer {
            safe_to_cut_over,
            because,
            caution,
            reasons,
        }
    }

    /// Returns the answer with more that speaks against it.
    pub fn but(mut self, reasons: Vec<String>) -> Answer {
        if reasons.is_empty() {
            return self;
        }
        push_named(reasons, "definitions differ", &mut self.reasons);
        Answer {
            safe_to_cut_over: false,
            because: String::new(),
            caution: None,
            reasons: self.reasons,
        }
    }

    /// Returns the answer in one word.
    pub fn word(&self) -> &'static str {
        if self.safe_to_cut_over { "yes" } else { "no" }
    }
}

fn table_reasons(status: &Status, tables: &[TableLine]) -> Vec<String> {
    let mut reasons = Vec::new();
    let different = tables.iter().filter_map(|table| match table.verdict {
        Verdict::Different { rows, .. } => Some(format!(
            "{} differs in {}",
            table.name,
            number::of(rows, "row")
        )),
        _ => None,
    });
    push_named(different.collect(), "tables differ", &mut reasons);
    let unproven = tables.iter().filter_map(|table| match &table.verdict {
        Verdict::Unproven { reason, .. } => Some(format!("{} is unproven: {reason}", table.name)),
        _ => None,
    });
    push_named(unproven.collect(), "tables are unproven", &mut reasons);
    let known = tables.len() as u64;
    if tables.is_empty() {
        reasons.push("no table has been read yet".to_owned());
    } else if known < status.load.tables {
        reasons.push(format!(
            "{} of {} have no verdict yet",
            number::count(status.load.tables - known),
            number::of(status.load.tables, "table")
        ));
    }
    reasons
}

fn push_named(mut named: Vec<String>, rest: &str, reasons: &mut Vec<String>) {
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    reasons.append(&mut named);
    if more > 0 {
        reasons.push(format!("{} more {rest}", number::count(more as u64)));
    }
}

fn feed_reasons(status: &Status, live: bool, now_ms: i64) -> Option<String> {
    if !live {
        return Some(match status.phase {
            Phase::Failed => "the migration failed and is not running".to_owned(),
            _ => "no migration is running: changes on the source are not followed".to_owned(),
        });
    }
    if status.phase != Phase::Follow {
        return Some(format!(
            "the migration does not follow the source yet ({})",
            status.phase.as_str()
        ));
    }
    let Some(proven) = status.proven else {
        return Some("no fence has been proven yet".to_owned());
    };
    let age = now_ms - super::clock::wall_ms(proven.w);
    (age > PROVEN_AGE_MAX_MS).then(|| format!("the newest proven fence is {} old", duration(age)))
}

/// Returns how many tables are equal in this way.
fn equal_by(tables: &[TableLine], wanted: How) -> u64 {
    let is =
        |table: &&TableLine| matches!(table.verdict, Verdict::Equal { how, .. } if how == wanted);
    tables.iter().filter(is).count() as u64
}

fn because(tables: &[TableLine]) -> String {
    let (read, carried) = (equal_by(tables, How::Read), equal_by(tables, How::Carried));
    let ledger = equal_by(tables, How::Ledger);
    let mut ways = Vec::new();
    if read > 0 {
        ways.push(format!("{} by reading both sides", number::count(read)));
    }
    if ledger > 0 {
        let ledger = number::count(ledger);
        ways.push(format!("{ledger} by reading the target and a ledger"));
    }
    if carried > 0 {
        let carried = number::count(carried);
        ways.push(format!(
            "{carried} carried on by proven batches since they were read"
        ));
    }
    let all = number::of(tables.len() as u64, "table");
    let relaxed = tables.iter().filter(|table| table.is_relaxed()).count() as u64;
    if relaxed > 0 {
        let relaxed = number::count(relaxed);
        ways.push(format!("{relaxed} of them relaxed by policies of the task"));
    }
    format!("{all} equal: {}", ways.join(", "))
}

fn caution(tables: &[TableLine]) -> Option<String> {
    let carried = "carried verdicts cannot see what somebody else wrote on the target";
    let ledger = "ledgers cannot see an event that the feed lost";
    let ways = [(How::Carried, carried), (How::Ledger, ledger)];
    let cautions: Vec<&str> = ways
        .iter()
        .filter(|(how, _)| equal_by(tables, *how) > 0)
        .map(|(_, caution)| *caution)
        .collect();
    (!cautions.is_empty()).then(|| {
        format!(
            "{}; `rowproof check` reads both sides whole",
            cautions.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::testing::line;
    use super::*;
    use crate::fence::Fence;
    use crate::proof::Reason;

    const NOW: i64 = 1_700_000_000_000;

    fn following() -> Status {
        let fence = Fence {
            w: ((NOW - 1_000) as u64) << 18,
            s: 1,
        };
        Status {
            phase: Phase::Follow,
            proven: Some(fence),
            ..Status::default()
        }
    }

    fn equal(how: How) -> Verdict {
        Verdict::Equal {
            fence: Fence { w: 1, s: 1 },
            how,
        }
    }

    #[test]
    fn it_is_safe_when_all_is_equal_and_the_feed_is_live() {
        let tables = [line("a", equal(How::Read)), line("b", equal(How::Carried))];
        let answer = Answer::of(&following(), true, NOW, &tables);
        assert!(answer.safe_to_cut_over, "{answer:?}");
        assert!(
            answer
                .caution
                .expect("a caution")
                .contains("somebody else wrote")
        );
        assert_eq!(
            answer.because,
            "2 tables equal: 1 by reading both sides, 1 carried on by proven batches since they \
             were read"
        );
    }

    #[test]
    fn inv_2_a_ledger_is_called_a_ledger_and_what_it_cannot_see_is_said() {
        let tables = [line("a", equal(How::Read)), line("b", equal(How::Ledger))];
        let answer = Answer::of(&following(), true, NOW, &tables);
        assert_eq!(
            answer.because,
            "2 tables equal: 1 by reading both sides, 1 by reading the target and a ledger"
        );
        let caution = answer.caution.expect("a caution");
        assert!(caution.contains("an event that the feed lost"), "{caution}");
        assert!(!caution.contains("somebody else"), "{caution}");
    }

    #[test]
    fn inv_2_whatever_is_not_proven_makes_it_unsafe() {
        let good = line("a", equal(How::Carried));
        let status = following();
        let reasons = |status: &Status, live, now, tables: &[TableLine]| {
            Answer::of(status, live, now, tables).reasons
        };
        let bad = line("b", Verdict::unproven(Reason::Ddl, "d"));
        let tables = [good.clone(), bad];
        assert_eq!(
            reasons(&status, true, NOW, &tables),
            ["shop.b is unproven: DDL"]
        );
        let bad = line(
            "b",
            Verdict::Different {
                fence: Fence { w: 1, s: 1 },
                rows: 2,
            },
        );
        let tables = [bad];
        assert_eq!(
            reasons(&status, true, NOW, &tables),
            ["shop.b differs in 2 rows"]
        );
        assert_eq!(
            reasons(&status, true, NOW, &[]),
            ["no table has been read yet"]
        );
        let tables = [good];
        assert!(reasons(&status, false, NOW, &tables)[0].contains("no migration is running"));
        let late = reasons(&status, true, NOW + 120_000, &tables);
        assert_eq!(late, ["the newest proven fence is 2 min 1 s old"]);
        let mut loading = following();
        loading.phase = Phase::Load;
        loading.load.tables = 3;
        let reasons = reasons(&loading, true, NOW, &tables);
        assert_eq!(reasons[0], "2 of 3 tables have no verdict yet");
        assert!(reasons[1].contains("does not follow"), "{reasons:?}");
    }

    #[test]
    fn many_reasons_are_counted() {
        let different = Verdict::Different {
            fence: Fence { w: 1, s: 1 },
            rows: 1,
        };
        let tables: Vec<_> = (0..9)
            .map(|n| line(&format!("t{n}"), different.clone()))
            .collect();
        let reasons = Answer::of(&following(), true, NOW, &tables).reasons;
        assert_eq!(
            (reasons.len(), reasons[5].as_str()),
            (6, "4 more tables differ")
        );
    }
}
