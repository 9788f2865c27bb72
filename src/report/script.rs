//! The repair script of everything that is known to differ.

use super::clock::utc;
use crate::error::Result;
use crate::fence::Fence;
use crate::journal::{DifferenceRow, DifferenceView, Journal, now_ms};
use crate::repair::{Header, Script, Step};
use crate::schema::{Table, TableName};
use std::collections::VecDeque;

/// How many differences are held at once: a row may have many megabytes (INV-8).
const PAGE_ROWS: i64 = 8;

/// A repair script that is made piece by piece from the journal.
///
/// It reads one fixed view of the differences, however long that takes, so that no row is deleted in
/// one pass and forgotten in the next. While it lives it holds one connection of the journal.
#[derive(Debug)]
pub struct RepairScript {
    view: DifferenceView,
    journal: Journal,
    head: Option<String>,
    tables: VecDeque<TableName>,
    current: Option<Passes>,
    script: Option<Script>,
    rows: u64,
    statements: u64,
}

/// The passes over one table.
#[derive(Debug)]
struct Passes {
    table: Table,
    steps: VecDeque<Step>,
    after: i64,
    page: VecDeque<DifferenceRow>,
}

impl RepairScript {
    /// Begins the script of one table or of all.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn open(journal: &Journal, table: Option<&TableName>) -> Result<RepairScript> {
        let task = journal.status().await?.task;
        let mut view = journal.difference_view().await?;
        let tables: VecDeque<TableName> = view
            .tables()
            .await?
            .into_iter()
            .filter(|name| table.is_none_or(|wanted| wanted == name))
            .collect();
        let mut rows = 0;
        let mut newest: Option<Fence> = None;
        for name in &tables {
            let (count, fence) = view.summary(name).await?;
            rows += count;
            newest = newest.into_iter().chain(fence).max_by_key(|fence| fence.w);
        }
        let script = Script::new();
        let scope = table.map_or_else(|| "all tables".to_owned(), TableName::to_string);
        let made = utc(now_ms());
        let head = script.head(&Header {
            task: &task,
            scope: &scope,
            rows,
            fence: newest,
            made: &made,
        });
        Ok(RepairScript {
            view,
            journal: journal.clone(),
            head: Some(head),
            tables,
            current: None,
            script: Some(script),
            rows,
            statements: 0,
        })
    }

    /// Returns how many rows differ.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns how many statements were returned so far.
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// Returns the next piece of the script: the head, then one statement at a time, then the tail.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn next_piece(&mut self) -> Result<Option<String>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        loop {
            if let Some(row) = self
                .current
                .as_mut()
                .and_then(|passes| passes.page.pop_front())
            {
                if let Some(piece) = self.entry(&row) {
                    return Ok(Some(piece));
                }
            } else if self.current.is_some() {
                self.next_page().await?;
            } else if let Some(name) = self.tables.pop_front() {
                if let Some(piece) = self.begin_table(name).await? {
                    return Ok(Some(piece));
                }
            } else {
                return Ok(self.script.take().map(Script::tail));
            }
        }
    }

    /// Returns the row's part of this pass. Of a table that cannot be mended the script says why
    /// and goes on.
    fn entry(&mut self, row: &DifferenceRow) -> Option<String> {
        let passes = self.current.as_ref()?;
        let step = *passes.steps.front()?;
        match self
            .script
            .as_mut()?
            .entry(&passes.table, &row.difference, row.fence, step)
        {
            Ok(piece) => {
                self.statements += u64::from(piece.is_some());
                piece
            }
            Err(error) => {
                self.current = None;
                Some(format!("\n-- NOT MENDED: {}\n", error.message()))
            }
        }
    }

    /// Reads the next rows of this pass, or goes on to the next pass, or ends the table.
    async fn next_page(&mut self) -> Result<()> {
        let Some(passes) = self.current.as_mut() else {
            return Ok(());
        };
        let page = self
            .view
            .page(&passes.table.name, passes.after, PAGE_ROWS)
            .await?;
        if let Some(last) = page.last() {
            passes.after = last.id;
            passes.page = page.into();
            return Ok(());
        }
        passes.after = 0;
        passes.steps.pop_front();
        if passes.steps.is_empty() {
            self.current = None;
        }
        Ok(())
    }

    async fn begin_table(&mut self, name: TableName) -> Result<Option<String>> {
        let Some(table) = self.journal.table_model(&name).await? else {
            let escaped = name.to_string().escape_debug().to_string();
            return Ok(Some(format!(
                "\n-- NOT MENDED: the definition of {escaped} is not known: check it first\n"
            )));
        };
        let steps = Step::ALL.into();
        self.current = Some(Passes {
            table,
            steps,
            after: 0,
            page: VecDeque::new(),
        });
        Ok(None)
    }
}
