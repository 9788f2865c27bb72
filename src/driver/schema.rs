//! Making the tables on the target.

use crate::database::{Catalog, Record, Session, next_value};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::CommitTs;
use crate::journal::Journal;
use crate::schema::{
    Index, LeftOut, SchemaDifference, Spellings, Table, TableName, View, Weight, add_foreign_key,
    add_indexes, compare, create_database, create_table, create_view, differences, same_key,
    spellings,
};
use crate::task::Task;
use std::collections::BTreeSet;

/// What is needed to make tables on the target.
#[derive(Debug)]
pub struct Making<'a> {
    /// The task, whose choices say how.
    pub task: &'a Task,
    /// rowproof's record on the target.
    pub record: &'a Record,
    /// The journal, which remembers how the target prints expressions.
    pub journal: &'a Journal,
    /// The collations that the target knows.
    pub collations: BTreeSet<String>,
    /// What the target had before.
    pub existing: Catalog,
}

impl Making<'_> {
    /// Makes a table on the target, once, and records it. After a crash in between it is found
    /// empty, and recorded then.
    ///
    /// # Errors
    /// If the target has another table of that name, or refuses to make it.
    pub async fn table(
        &self,
        (source, target): (&mut Session, &mut Session),
        known: bool,
        table: &Table,
        base: CommitTs,
    ) -> Result<()> {
        let wanted = self.task.choices.adapt(table, &self.collations);
        let found = self.existing.find(&table.target);
        if let (Some(found), false) = (found, known) {
            if self.task.scope.adopts(&table.name) {
                assert_adoptable(&wanted, found)?;
            } else {
                assert_empty(target, &table.target).await?;
            }
            assert_holds(&wanted, found)?;
        }
        if found.is_none() {
            make_database(target, &table.target.schema).await?;
            // A table without an expression has nothing that could be printed otherwise.
            if !spellings(&wanted, &wanted).is_empty() {
                self.journal.add_unspelled(&table.target).await?;
            }
            let next = next_value(source, table).await?;
            let choices = &self.task.choices;
            let mut made = wanted;
            made.indexes.retain(|index| !choices.defers(index));
            target
                .execute(create_table(&made, next))
                .await
                .map_err(|error| {
                    error.at(format!("making table {} on the target", table.target))
                })?;
        }
        self.record.add_followed(target, table, base).await
    }

    /// Makes the views that the target lacks, after all tables. A view may read another one: what
    /// is refused is tried again as long as any other can be made.
    ///
    /// # Errors
    /// If the target refuses a view for good; its user needs CREATE VIEW.
    pub async fn views(&self, target: &mut Session, views: &[View]) -> Result<()> {
        if self.task.choices.leaves_out(LeftOut::Views) {
            return Ok(());
        }
        let is_missing = |view: &&View| self.existing.find_view(&view.name).is_none();
        let mut left: Vec<&View> = views.iter().filter(is_missing).collect();
        while !left.is_empty() {
            let mut refused = Vec::new();
            let mut last = None;
            for view in &left {
                self.journal.add_unspelled(&view.name).await?;
                match target.execute(create_view(view)).await {
                    Ok(_) => {}
                    Err(error) if error.kind().is_retryable() => return Err(error),
                    Err(error) => {
                        last = Some(error.at(format!("making view {} on the target", view.name)));
                        refused.push(*view);
                    }
                }
            }
            match last {
                Some(error) if refused.len() == left.len() => {
                    return Err(error.advise(
                        "GRANT CREATE VIEW on the database to rowproof's user on the target, if \
                         that is what it lacks; or exclude the view under [tables], or leave_out = [\"views\"] under [schema]",
                    ));
                }
                _ => left = refused,
            }
        }
        Ok(())
    }

    /// Notes how the target prints the expressions of what rowproof has made, once for all of it: it
    /// rewrites them, so that they cannot be told from others later. What was made before a crash
    /// is noted after it.
    ///
    /// # Errors
    /// If the target cannot be asked.
    pub async fn remember_spellings(&self, target: &mut Session, wanted: &Catalog) -> Result<()> {
        let unspelled = self.journal.unspelled().await?;
        if unspelled.is_empty() {
            return Ok(());
        }
        let is_made = |name: &TableName| unspelled.iter().any(|made| made.is_same(name));
        let made = Catalog::read(target, &self.task.scope).await?;
        for table in wanted.tables.iter().filter(|table| is_made(&table.target)) {
            if let Some(made) = made.find(&table.target) {
                let wanted = self.task.choices.adapt(table, &self.collations);
                self.journal
                    .add_spellings(&spellings(&wanted, made))
                    .await?;
            }
        }
        for view in wanted.views.iter().filter(|view| is_made(&view.name)) {
            if let Some(made) = made.find_view(&view.name) {
                let mut spellings = Spellings::default();
                spellings.add(&view.query, &made.query);
                self.journal.add_spellings(&spellings).await?;
            }
        }
        self.journal.clear_unspelled().await
    }

    /// Makes what follows the rows: the indexes that were put off, then the foreign keys; what is
    /// there already is left.
    ///
    /// # Errors
    /// If the target refuses one.
    pub async fn after_rows(&self, target: &mut Session, table: &Table) -> Result<()> {
        let choices = &self.task.choices;
        let wanted = choices.adapt(table, &self.collations);
        let found = self.existing.find(&table.target);
        let is_there = |index: &Index| {
            let mut there = found.into_iter().flat_map(|found| &found.indexes);
            there.any(|other| other.name.eq_ignore_ascii_case(&index.name))
        };
        let lacking: Vec<&Index> = wanted
            .indexes
            .iter()
            .filter(|index| choices.defers(index) && !is_there(index))
            .collect();
        if !lacking.is_empty() {
            let made = target.execute(add_indexes(&table.target, &lacking)).await;
            made.map_err(|error| {
                error
                    .at(format!("making the indexes of {}", table.target))
                    .advise("GRANT ALTER, INDEX on the database to rowproof's user on the target")
            })?;
        }
        self.foreign_keys(target, &wanted).await
    }

    /// Makes the foreign keys that the target lacks.
    ///
    /// The session checks none, so the rows that are there are not read, and neither the order of
    /// the tables nor a parent that is not there yet matters. None of them ever fires on what
    /// rowproof writes (INV-10).
    ///
    /// # Errors
    /// If the target refuses one; its user needs ALTER and REFERENCES.
    async fn foreign_keys(&self, target: &mut Session, wanted: &Table) -> Result<()> {
        let found = self.existing.find(&wanted.target);
        for key in &wanted.features.foreign_keys {
            if found.is_some_and(|found| {
                found
                    .features
                    .foreign_keys
                    .iter()
                    .any(|of| same_key(key, of))
            }) {
                continue;
            }
            target
                .execute(add_foreign_key(&wanted.target, key))
                .await
                .map_err(|error| {
                    let place = format!("making foreign key {} of {}", key.name, wanted.target);
                    error.at(place).advise(
                        "GRANT ALTER, REFERENCES on the database to rowproof's user on the \
                         target, or leave_out = [\"foreign-keys\"] under [schema]",
                    )
                })?;
        }
        Ok(())
    }
}

async fn make_database(target: &mut Session, schema: &str) -> Result<()> {
    // A user with grants on one database only may not run this even where it changes nothing.
    let found = target
        .text(format!(
            "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            crate::apply::text_literal(schema.as_bytes())
        ))
        .await?;
    if found.is_some() {
        return Ok(());
    }
    let made = target.execute(create_database(schema)).await;
    made.map(|_| ()).map_err(|error| {
        error
            .at(format!("making database {schema} on the target"))
            .advise("make it as an administrator, or GRANT CREATE ON *.* to rowproof's user")
    })
}

async fn assert_empty(target: &mut Session, name: &TableName) -> Result<()> {
    let row = target
        .text(format!("SELECT 1 FROM {} LIMIT 1", name.sql()))
        .await?;
    if row.is_none() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("the target's table {name} holds rows that rowproof did not write"),
    )
    .advise(
        "empty or drop it; or name it in adopt under [tables]: then what differs there is deleted \
         and written anew, and what is equal is left; or exclude it",
    ))
}

/// Refuses to adopt a table whose rows could not be compared with the source's.
pub fn assert_adoptable(source: &Table, target: &Table) -> Result<()> {
    let what = match compare(source, target) {
        _ if source.key_len == 0 => {
            "it has no key by which its rows could be told apart".to_owned()
        }
        differing if !differing.is_empty() => differing.join("; "),
        _ => return Ok(()),
    };
    let message = format!(
        "the target's table {} cannot be adopted: {what}",
        source.target
    );
    Err(Error::new(ErrorKind::Refused, message)
        .advise("mend it as precheck says, or empty or drop it, and take it out of adopt"))
}

/// Refuses a table that cannot hold every row of the source. What else differs is told and left as
/// it is.
fn assert_holds(source: &Table, target: &Table) -> Result<()> {
    let found = differences(source, target, &Spellings::default());
    let texts = |found: Vec<&SchemaDifference>| -> Vec<String> {
        found.iter().map(|of| of.what.clone()).collect()
    };
    let (loss, rest): (Vec<_>, Vec<_>) = found.iter().partition(|of| of.weight == Weight::Loss);
    for what in texts(rest) {
        eprintln!(
            "the target's table {} is kept as it is: {what}",
            source.target
        );
    }
    if loss.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "the target's table {} cannot hold what the source has: {}",
            source.target,
            texts(loss).join("; ")
        ),
    )
    .advise("drop it, and rowproof makes it anew; or mend it, precheck says how"))
}
