//! What of the definitions in scope would stop or spoil a migration, each with its fix.

use super::precheck::Finding;
use super::schema::assert_adoptable;
use crate::apply::widened_elements;
use crate::database::{
    Catalog, Record, Session, collations, sequence_sql, show_create, source_scan,
};
use crate::error::Result;
use crate::row::Kind;
use crate::schema::{
    ColumnDefault, LeftOut, Spellings, Table, TableName, Weight, differences, for_target,
    is_temporary, notices, obstacles, quote,
};
use crate::task::Task;
use std::collections::BTreeSet;

/// Looks at every table in scope, on both sides, and at what else is in scope. Returns the tables
/// without a key.
///
/// # Errors
/// If a database cannot be asked.
pub async fn definitions(
    task: &Task,
    source: &mut Session,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<Vec<TableName>> {
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
    vectors(&wanted, target, findings).await?;
    findings.extend(json(&wanted));
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
    for policy in task.scope.unused_policies(&wanted.tables) {
        findings.push(super::policy::unused(&policy));
    }
    let errors = findings.len() - before;
    let keyless = wanted.tables.iter().filter(|table| table.key_len == 0);
    let keyless: Vec<TableName> = keyless.map(|table| table.name.clone()).collect();
    findings.extend(
        keyless
            .iter()
            .map(|name| without_key(name, task.feed.is_some())),
    );
    if errors == 0 {
        let count = wanted.tables.len();
        findings.push(Finding::ok(format!(
            "all {count} tables in scope can be carried"
        )));
    }
    let adapted: Vec<Table> = wanted
        .tables
        .iter()
        .map(|table| task.choices.adapt(table, &collations))
        .collect();
    let occupied = occupied(task, &adapted, &existing, target, findings).await?;
    rights(task, (&wanted, &adapted, &occupied), target, findings).await?;
    for table in &wanted.tables {
        notice(task, table, source, &collations, findings).await?;
        triggers(table, &existing, target, findings).await?;
    }
    Ok(keyless)
}

/// Says what of JSON the source does not tell.
fn json(wanted: &Catalog) -> Option<Finding> {
    let has_json = |table: &&Table| table.columns.iter().any(|of| of.kind == Kind::Json);
    let tables: Vec<&Table> = wanted.tables.iter().filter(has_json).collect();
    let first = &tables.first()?.name;
    Some(Finding::note(
        format!(
            "the type of some JSON values is not carried ({} tables, {first} the first)",
            tables.len()
        ),
        "TiDB prints the double 1.0 as 1, and dates and bytes within JSON as strings, in reads and in the \
         feed: such a value arrives as an integer or a string, and only JSON_TYPE tells",
        "nothing, if the application does not ask for JSON_TYPE",
    ))
}

/// Sees whether the target can print vectors with all their bits, where there are some.
async fn vectors(
    wanted: &Catalog,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let has_vector = |table: &&Table| {
        let mut columns = table.columns.iter();
        columns.any(|column| column.kind == Kind::Vector)
    };
    let Some(table) = wanted.tables.iter().find(has_vector) else {
        return Ok(());
    };
    let name = &table.name;
    match target.text(format!("SELECT {}", widened_elements("[0.5]"))).await {
        Ok(_) => {}
        Err(error) if error.kind().is_retryable() => return Err(error),
        Err(error) => findings.push(Finding::error(
            format!("table {name}: it has a VECTOR, which this target cannot print exactly: {error}"),
            "OceanBase prints six digits of each element; only array_map(), which it has since 4.3.5, \
             shows all of them, and without it nothing could be proven",
            format!("migrate to a newer OceanBase, or exclude {name} and every other table with a VECTOR"),
        )),
    }
    Ok(())
}

/// Says what the limits of TiCDC mean for a table without a key.
fn without_key(name: &TableName, followed: bool) -> Finding {
    let what = format!("table {name}: it has no primary key and no unique key of NOT NULL columns");
    if !followed {
        let why = "it is compared as a multiset, by reading it whole";
        return Finding::warning(
            what,
            why,
            "nothing: without a feed it is loaded and checked",
        );
    }
    Finding::warning(
        what,
        "TiCDC sends nothing of such tables unless the changefeed has force-replicate = true; \
         with it, each change costs a read of the whole table on both sides, unless an index helps",
        format!(
            "create the changefeed with force-replicate = true, or give the table a primary key, or \
             exclude {name} under [tables]; without, the table is unproven after the load until \
             `rowproof check` reads it, and its changes are missing"
        ),
    )
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

/// Compares tables that the target has already, and that rowproof did not make, with the wanted
/// ones, and returns the databases in which there are any.
async fn occupied(
    task: &Task,
    wanted: &[Table],
    existing: &Catalog,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<BTreeSet<String>> {
    let record = Record::new(&task.name);
    let followed = match record.exists(target).await? {
        true => record.followed(target).await?,
        false => Vec::new(),
    };
    let mut schemas = BTreeSet::new();
    for table in wanted {
        let own = followed.iter().any(|row| row.name == table.name);
        let Some(found) = existing.find(&table.target).filter(|_| !own) else {
            continue;
        };
        schemas.insert(table.target.schema.clone());
        findings.extend(rows_there(task, table, found, target).await?);
        for difference in differences(table, found, &Spellings::default()) {
            let what = format!("table {} on the target: {}", table.target, difference.what);
            let fix = match difference.mend.join("; ") {
                mend if mend.is_empty() => "drop it, and rowproof makes it anew".to_owned(),
                mend => format!("{mend}; or drop it, and rowproof makes it anew"),
            };
            findings.push(match difference.weight {
                Weight::Loss => Finding::error(
                    what,
                    "it cannot hold every row that the source may have",
                    fix,
                ),
                _ => Finding::warning(what, "it is kept as it is", fix),
            });
        }
    }
    Ok(schemas)
}

/// Looks whether a table that the target has already is empty, and if not, whether it is adopted.
async fn rows_there(
    task: &Task,
    table: &Table,
    found: &Table,
    target: &mut Session,
) -> Result<Option<Finding>> {
    let name = &table.target;
    let any = format!("SELECT 1 FROM {} LIMIT 1", name.sql());
    let occupied = match target.text(any).await {
        Ok(row) => row.is_some(),
        Err(error) if error.kind().is_retryable() => return Err(error),
        Err(error) => {
            let why = "rows that are there already would be in the way";
            return Ok(Some(Finding::met(&error, why)));
        }
    };
    let adopted = task.scope.adopts(&table.name);
    Ok(match (occupied, adopted, assert_adoptable(table, found)) {
        (false, ..) => None,
        (true, false, _) => Some(Finding::error(
            format!("table {name} on the target holds rows that rowproof did not write"),
            "rowproof overwrites nothing unasked",
            format!(
                "empty or drop it; or adopt = [\"{}\"] under [tables]: then what differs there is \
                 deleted and written anew, and what is equal is left",
                table.name
            ),
        )),
        (true, true, Err(error)) => Some(Finding::met(&error, "its rows could not be compared")),
        (true, true, Ok(())) => Some(Finding::warning(
            format!("table {name} on the target holds rows, and is adopted"),
            "rows there that the source does not have, or has otherwise, will be deleted",
            "nothing, if that is wanted; else take it out of adopt under [tables]",
        )),
    })
}

/// Looks whether rowproof's user may make foreign keys and views, and see triggers on tables that are
/// there already: without the right they are hidden from it. Rights that come through a role are
/// not seen, so that this only warns.
async fn rights(
    task: &Task,
    (wanted, adapted, occupied): (&Catalog, &[Table], &BTreeSet<String>),
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut needed: BTreeSet<(&str, &str)> = BTreeSet::new();
    for table in adapted {
        for key in &table.features.foreign_keys {
            needed.insert((&table.target.schema, "ALTER"));
            needed.insert((&key.parent.schema, "REFERENCES"));
        }
    }
    if !task.choices.leaves_out(LeftOut::Views) {
        let schemas = wanted.views.iter().map(|view| view.name.schema.as_str());
        needed.extend(schemas.map(|schema| (schema, "CREATE VIEW")));
    }
    needed.extend(occupied.iter().map(|schema| (schema.as_str(), "TRIGGER")));
    if needed.is_empty() {
        return Ok(());
    }
    let grants: Vec<String> = target
        .texts("SHOW GRANTS")
        .await?
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect();
    for (schema, right) in needed {
        if !grants.iter().any(|grant| gives(grant, schema, right)) {
            let (why, or) = match right {
                "TRIGGER" => (
                    "a trigger on a table that is there already stays unseen",
                    "",
                ),
                "CREATE VIEW" => (
                    "views could not be made",
                    ", or leave_out = [\"views\"] under [schema]",
                ),
                _ => (
                    "foreign keys could not be made when the load is done",
                    ", or leave_out = [\"foreign-keys\"] under [schema]",
                ),
            };
            findings.push(Finding::warning(
                format!("the target shows no {right} on {schema} for rowproof's user"),
                why,
                format!("GRANT {right} ON {}.* TO that user{or}", quote(schema)),
            ));
        }
    }
    Ok(())
}

/// Tells whether a line of SHOW GRANTS gives a right on all tables of a database.
fn gives(grant: &str, schema: &str, right: &str) -> bool {
    let parts = grant
        .strip_prefix("GRANT ")
        .and_then(|rest| rest.split_once(" ON "));
    let Some((rights, rest)) = parts else {
        return false;
    };
    let object = rest.split(" TO ").next().unwrap_or_default();
    let here = object == "*.*" || object.eq_ignore_ascii_case(&format!("{}.*", quote(schema)));
    let all = rights.starts_with("ALL PRIVILEGES");
    here && (all || rights.split(", ").any(|of| of == right))
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
        .execute(format!("EXPLAIN {}", source_scan(table, None).sql))
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

#[cfg(test)]
mod tests {
    use super::gives;

    #[test]
    fn a_right_is_read_from_the_line_that_gives_it() {
        let grant = "GRANT ALTER, CREATE VIEW ON `Shop`.* TO 'rowproof'";
        assert!(gives(grant, "shop", "ALTER") && gives(grant, "shop", "CREATE VIEW"));
        assert!(!gives(grant, "shop", "REFERENCES") && !gives(grant, "other", "ALTER"));
        assert!(!gives(
            "GRANT CREATE VIEW ON `shop`.* TO 'a'",
            "shop",
            "CREATE"
        ));
        assert!(gives(
            "GRANT ALL PRIVILEGES ON *.* TO 'root'",
            "shop",
            "ALTER"
        ));
        assert!(!gives("GRANT USAGE ON *.* TO 'a'", "shop", "ALTER"));
    }
}
