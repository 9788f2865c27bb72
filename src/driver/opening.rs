//! The fence of a check, and the ledgers that begin with it: what the check reads at its fence, and what
//! the migration gathers from there on, is one ledger when the check is done.

use super::link::{Link, Retries};
use crate::database::{Record, newest_fence};
use crate::error::Result;
use crate::feed::CommitTs;
use crate::fence::{Fence, FenceState};
use crate::journal::Journal;
use crate::proof::{Ledger, Verdict, ledger_obstacle};
use crate::schema::{Table, TableName};
use crate::task::Task;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the newest fence may stand still before the check gives up waiting for a later one.
const FENCE_PATIENCE: Duration = Duration::from_secs(60);

/// How often the fence row is looked at while waiting.
const FENCE_LOOK: Duration = Duration::from_millis(20);

/// How many fences are tried: one that is proven before the check asks for what comes after it is of
/// no use, and under load the next may be too.
const FENCE_TRIES: usize = 5;

/// The ledgers that a check may begin. It must ask for what changes from its fence on before the
/// migration has proven a later one; from then on it may take all the time it needs.
#[derive(Debug)]
pub struct Openings {
    /// The fence; none if no ledger can begin.
    fence: Option<Fence>,
    /// The rows of the source that were read at the fence; none of a table of which a part was read at
    /// a later one.
    rows: Mutex<BTreeMap<TableName, Option<Ledger>>>,
}

impl Openings {
    /// Waits for a fence at or after `asked`, or says why none comes, and asks for what changes from
    /// there on in the tables that the migration knows.
    ///
    /// # Errors
    /// If the target or the journal fails.
    pub async fn at_next_fence(
        task: &Task,
        journal: &Journal,
        link: &mut Link,
        asked: CommitTs,
        in_scope: impl Fn(&TableName) -> bool,
    ) -> Result<(std::result::Result<Fence, String>, Openings)> {
        let known = journal.tables().await?.into_iter();
        let names: Vec<TableName> = known.map(|row| row.name).filter(in_scope).collect();
        let mut fence = wait_for_fence(task, link, asked).await?;
        for _ in 0..FENCE_TRIES {
            let Ok(at) = fence else { break };
            if journal.open_ledgers(&names, at).await? {
                let rows = names
                    .iter()
                    .map(|name| (name.clone(), Some(Ledger::default())));
                let openings = Openings {
                    fence: Some(at),
                    rows: Mutex::new(rows.collect()),
                };
                return Ok((fence, openings));
            }
            fence = wait_for_fence(task, link, at.w + 1).await?;
        }
        let openings = Openings {
            fence: None,
            rows: Mutex::default(),
        };
        Ok((fence, openings))
    }

    /// Returns where the ledger of rows that are read at a fence is gathered, if it is wanted.
    pub fn gathering(&self, table: &Table, fence: Fence) -> Option<Mutex<Ledger>> {
        let wanted = self.fence == Some(fence) && ledger_obstacle(table).is_none();
        wanted.then(Mutex::default)
    }

    /// Takes what was gathered of a part of a table, or that nothing was.
    pub fn gather(&self, name: &TableName, rows: Option<Mutex<Ledger>>) {
        let rows = rows.map(|rows| rows.into_inner().expect("no holder of the ledger panics"));
        let mut all = self.rows.lock().expect("no holder of the rows panics");
        if let Some(known) = all.get_mut(name) {
            match (known.as_mut(), &rows) {
                (Some(known), Some(rows)) => known.merge(rows),
                _ => *known = None,
            }
        }
    }

    /// Begins the ledger of a table with this verdict.
    ///
    /// # Errors
    /// If the journal fails.
    pub async fn conclude(
        &self,
        journal: &Journal,
        name: &TableName,
        verdict: &Verdict,
    ) -> Result<()> {
        let rows = {
            let mut all = self.rows.lock().expect("no holder of the rows panics");
            all.remove(name)
        };
        let (Some(rows), Some(fence)) = (rows, self.fence) else {
            return Ok(());
        };
        let equal = matches!(verdict, Verdict::Equal { .. });
        journal
            .close_opening(name, fence, rows.filter(|_| equal))
            .await
    }

    /// Lets go of the tables that were not read.
    ///
    /// # Errors
    /// If the journal fails.
    pub async fn close(&self, journal: &Journal) -> Result<()> {
        let rows = {
            let mut all = self.rows.lock().expect("no holder of the rows panics");
            std::mem::take(&mut *all)
        };
        for (name, _) in rows {
            if let Some(fence) = self.fence {
                journal.close_opening(&name, fence, None).await?;
            }
        }
        Ok(())
    }
}

/// Waits for a fence at or after `asked`. It gives up, with the reason, when none is to come.
///
/// # Errors
/// If the target fails for good.
pub async fn wait_for_fence(
    task: &Task,
    link: &mut Link,
    asked: CommitTs,
) -> Result<std::result::Result<Fence, String>> {
    let mut begun = false;
    let mut last = None;
    let mut moved = Instant::now();
    let mut retries = Retries::new();
    while moved.elapsed() < FENCE_PATIENCE {
        let look = async {
            let session = link.session().await?;
            begun = begun || Record::new(&task.name).exists(session).await?;
            match begun {
                true => newest_fence(session, &task.name).await,
                false => Ok(None),
            }
        };
        let found = match look.await {
            Ok(found) => found,
            Err(error) => {
                link.reset();
                retries.pause(error.at("looking for a fence")).await?;
                continue;
            }
        };
        if !begun {
            let none = format!("task {} has no migration on this target", task.name);
            return Ok(Err(none));
        }
        retries = Retries::new();
        match &found {
            Some((row, fence)) if row.state == FenceState::Complete && fence.w >= asked => {
                return Ok(Ok(*fence));
            }
            _ => {}
        }
        if found != last {
            last = found;
            moved = Instant::now();
        }
        tokio::time::sleep(FENCE_LOOK).await;
    }
    Ok(Err(match last {
        Some((row, _)) => format!(
            "the newest fence stands at {} and has not moved for {} s: is rowproof migrate \
             running, and does the feed send watermarks?",
            row.w,
            FENCE_PATIENCE.as_secs()
        ),
        None => "the migration has made no fence yet: the load is not finished".to_owned(),
    }))
}
