//! What of the definitions in scope would stop or spoil a migration, each with its fix.

use super::precheck::Finding;
use crate::database::{Catalog, Session, collations, sequence_sql, show_create, source_scan};
use crate::error::Result;
use crate::schema::{
    ColumnDefault, LeftOut, Table, TableName, for_target, is_temporary, notices, obstacles, quote,
};
use crate::task::Task;
use std::collections::BTreeSet;

/// Looks at every table in scope, on both sides, and at what else is in scope.
///
/// # Errors
/// If a database cannot be asked.
pub async fn definitions(
    task: &Task,
    source: &mut Session,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let wanted = Catalog::read(source, &task.scope).await?;
    let existing = Catalog::read(target, &task.scope).await?;
    let collations = collations(target).await?;
    let before = findings.len();
    for table in &wanted.tables {
        for obstacle in obstacles(table, &task.choices, &collations) {
            let what = format!("table {}: {}", table.name, obstacle.what);
            findings.push(Finding::error(what, &obstacle.why, obstacle.fix));
        }
        understood(&task.choices.adapt(table, &collations), target, findings).await?;
    }
    parents(task, &wanted, findings);
    for (one, other) in wanted.collisions() {
        findings.push(Finding::error(
            format!("tables {one} and {other} go to one table on the target"),
            "their rows could not be told apart there",
            "send them to different names in [tables] routes, or exclude one of them",
        ));
    }
    for table in &wanted.tables {
        filter(table, source, findings).await?;
    }
    views(task, &wanted, findings);
    sequences(task, &wanted, source, findings).await?;
    for (name, what) in &wanted.others {
        findings.push(Finding::error(
            format!("{name}: {what}"),
            "rowproof does not carry it yet and drops nothing silently",
            format!("exclude {name} under [tables]"),
        ));
    }
    if wanted.tables.is_empty() && wanted.others.is_empty() {
        findings.push(Finding::error(
            "no table is in scope",
            "there is nothing to migrate",
            "compare include and exclude under [tables] with the source's tables, and the grants \
             of rowproof's user on the source",
        ));
    }
    if findings.len() == before {
        let count = wanted.tables.len();
        findings.push(Finding::ok(format!(
            "all {count} tables in scope can be carried"
        )));
    }
    for table in &wanted.tables {
        notice(task, table, source, &collations, findings).await?;
        triggers(table, &existing, target, findings).await?;
    }
    Ok(())
}

/// Looks at the views: their queries name tables by the names that these have on the source.
fn views(task: &Task, wanted: &Catalog, findings: &mut Vec<Finding>) {
    let routed = wanted.tables.iter().any(|table| table.target != table.name);
    for view in &wanted.views {
        if task.choices.leaves_out(LeftOut::Views) {
            findings.push(Finding::warning(
                format!("view {} is left out", view.name),
                "[schema] leave_out in the task file says so",
                "nothing, if that is wanted",
            ));
        } else if routed {
            findings.push(Finding::error(
                format!("view {} names tables that go elsewhere", view.name),
                "[tables] routes gives tables other names, and the view has those of the source",
                left_out("views", &view.name),
            ));
        }
    }
}

/// Looks at the sequences, which only some versions of OceanBase know.
async fn sequences(
    task: &Task,
    wanted: &Catalog,
    source: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for name in &wanted.sequences {
        let sql = sequence_sql(source, name).await?;
        findings.push(match task.choices.leaves_out(LeftOut::Sequences) {
            true => Finding::warning(
                format!("sequence {name} is left out"),
                "[schema] leave_out in the task file says so",
                format!("where the target knows sequences, run at the cutover: {sql}"),
            ),
            false => Finding::error(
                format!("{name}: it is a sequence"),
                "rowproof makes no sequences: not every OceanBase knows them, and their values \
                 are not part of the feed",
                format!("{}; at the cutover: {sql}", left_out("sequences", name)),
            ),
        });
    }
    Ok(())
}

/// Returns the advice to leave a kind of definition out.
fn left_out(kind: &str, name: &TableName) -> String {
    format!(
        "leave_out = [\"{kind}\"] under [schema] makes the target without it; or exclude {name} \
         under [tables]"
    )
}

/// Has the target understand the expressions of a definition that the source printed: it may lack a
/// function. Nothing is made for it.
async fn understood(
    table: &Table,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("NULL AS {}", quote(&column.name)))
        .collect();
    for (place, expression) in expressions(table) {
        let sql = format!(
            "SELECT ({}) FROM (SELECT {}) AS probe LIMIT 0",
            for_target(expression),
            columns.join(", ")
        );
        match target.execute(sql).await {
            Ok(_) => {}
            Err(error) if error.kind().is_retryable() => return Err(error),
            Err(error) => findings.push(Finding::error(
                format!(
                    "table {}: the target does not understand {place}: {}",
                    table.name,
                    error.message()
                ),
                "it reads other SQL than TiDB writes",
                format!(
                    "write the expression otherwise on the source, see leave_out of [schema], or \
                     exclude {} under [tables]",
                    table.name
                ),
            )),
        }
    }
    Ok(())
}

/// Lists the expressions of a definition that can stand in a SELECT, each with its place.
fn expressions(table: &Table) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for column in &table.columns {
        if let Some(generation) = &column.generation {
            let place = format!("generated column {}", column.name);
            found.push((place, generation.expression.as_str()));
        }
        if let ColumnDefault::Expression(text) = &column.default {
            found.push((
                format!("the default of column {}", column.name),
                text.as_str(),
            ));
        }
    }
    for check in &table.features.checks {
        found.push((format!("CHECK {}", check.name), check.condition.as_str()));
    }
    for index in &table.indexes {
        // An index on the elements of an array has an expression of a kind that no SELECT takes.
        let parts = index
            .parts
            .iter()
            .filter_map(|part| part.expression.as_deref());
        for part in parts.filter(|part| !part.ends_with(" array)")) {
            found.push((format!("index {}", index.name), part));
        }
    }
    found
}

/// Finds foreign keys to tables that do not take part.
fn parents(task: &Task, wanted: &Catalog, findings: &mut Vec<Finding>) {
    if task.choices.leaves_out(LeftOut::ForeignKeys) {
        return;
    }
    for table in &wanted.tables {
        for key in &table.features.foreign_keys {
            let takes_part = wanted
                .tables
                .iter()
                .any(|of| of.target.is_same(&key.parent));
            if !takes_part {
                findings.push(Finding::error(
                    format!(
                        "table {}: foreign key {} refers to {}, which does not take part",
                        table.name, key.name, key.parent
                    ),
                    "the target would hold rows to a table that nobody keeps up",
                    format!(
                        "include {} under [tables], or leave_out = [\"foreign-keys\"] under \
                         [schema]",
                        key.parent
                    ),
                ));
            }
        }
    }
}

/// Lists what is carried otherwise than the source has it; an error is only what has no rows that
/// could be carried.
async fn notice(
    task: &Task,
    table: &Table,
    source: &mut Session,
    known: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let create = show_create(source, &table.name).await?;
    if is_temporary(&create) {
        findings.push(Finding::error(
            format!("table {}: it is temporary", table.name),
            "each session sees rows of its own, so that there is nothing to carry",
            format!("exclude {} under [tables]", table.name),
        ));
    }
    for notice in notices(table, &create, &task.choices, known) {
        let what = format!("table {}: {}", table.name, notice.what);
        findings.push(Finding::warning(what, &notice.why, notice.fix));
    }
    Ok(())
}

/// Has the source understand a table's filter.
async fn filter(table: &Table, source: &mut Session, findings: &mut Vec<Finding>) -> Result<()> {
    let Some(condition) = &table.filter else {
        return Ok(());
    };
    let name = &table.name;
    match source
        .execute(format!("EXPLAIN {}", source_scan(table, None, Some(1))))
        .await
    {
        Ok(_) => findings.push(Finding::warning(
            format!("table {name}: only rows where {condition} take part"),
            "every verdict on it is of those rows only",
            "nothing, if that is wanted; else take the filter out of [tables] filters",
        )),
        Err(error) if !error.kind().is_retryable() => findings.push(Finding::error(
            format!("table {name}: the source does not understand its filter: {error}"),
            "rowproof would not know which rows take part",
            "correct the condition in [tables] filters",
        )),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Finds triggers on target tables: they would write rows that no event asks for.
async fn triggers(
    table: &Table,
    existing: &Catalog,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(existing) = existing.find(&table.target) else {
        return Ok(());
    };
    let literal = |text: &str| crate::apply::text_literal(text.as_bytes());
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
         WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
        literal(&existing.name.schema),
        literal(&existing.name.table)
    );
    if target.text(sql).await?.is_some() {
        findings.push(Finding::error(
            format!("table {} has a trigger on the target", table.name),
            "it would fire on rowproof's writes and change what is migrated",
            "drop it until the cutover",
        ));
    }
    Ok(())
}
