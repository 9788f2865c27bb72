//! What of a table rowproof cannot carry, and where two definitions keep rows from being compared.

use super::limit::limit_obstacles;
use super::{
    Choices, Column, ColumnDefault, Index, Partitioning, Table, called_functions, named_columns,
};
use crate::row::Kind;
use std::collections::BTreeSet;

/// Something about a source table that this migration cannot carry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// What was found, naming the column where there is one.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// Lists what keeps `table` from being migrated, with these choices, to a target that knows these
/// `collations`.
pub fn obstacles(table: &Table, choices: &Choices, collations: &BTreeSet<String>) -> Vec<Obstacle> {
    let table = &choices.adapt(table, collations);
    let mut found = Vec::new();
    for special in &table.special {
        found.push(Obstacle {
            what: special.clone(),
            why: "rowproof does not carry it yet and drops nothing silently".to_owned(),
            fix: exclude(table),
        });
    }
    for column in &table.columns {
        column_obstacles(table, column, &mut found);
    }
    collation_obstacles(table, collations, &mut found);
    limit_obstacles(table, &mut found);
    for index in &table.indexes {
        index_obstacles(table, index, &mut found);
    }
    if let Some(partitioning) = &table.features.partitioning {
        partition_obstacles(table, partitioning, &mut found);
    }
    if table.key_len == 0 {
        keyless_obstacles(table, &mut found);
    }
    found
}

/// What a table without a key cannot have.
fn keyless_obstacles(table: &Table, found: &mut Vec<Obstacle>) {
    let mut push = |what: &str, why: &str| {
        found.push(Obstacle {
            what: what.to_owned(),
            why: why.to_owned(),
            fix: format!("give it a primary key, or {}", exclude(table)),
        });
    };
    if table.columns.iter().any(|column| column.is_virtual()) {
        push(
            "it has no key, but a virtual column",
            "the feed names a row by all its columns, and has no virtual ones",
        );
    }
    if table.features.partitioning.is_some() {
        push(
            "it has no key, but partitions",
            "the hidden number by which its rows are read need not be unique across partitions",
        );
    }
}

pub(super) fn exclude(table: &Table) -> String {
    format!("exclude {} under [tables]", table.name)
}

fn column_obstacles(table: &Table, column: &Column, found: &mut Vec<Obstacle>) {
    let name = &column.name;
    let mut push = |what: String, why: &str, fix: String| {
        let why = why.to_owned();
        found.push(Obstacle { what, why, fix });
    };
    match &column.default {
        ColumnDefault::Expression(text) if called_functions(text).contains(&"nextval".into()) => {
            push(
                format!("the default of column {name} takes values from a sequence"),
                "the target has no such sequence",
                left_out("expression-defaults", table),
            )
        }
        ColumnDefault::Expression(_) if has_no_default_on_target(column) => push(
            format!("column {name}, a {}, has a default", column.column_type),
            "OceanBase knows no defaults of TEXT, BLOB, JSON and VECTOR columns",
            left_out("expression-defaults", table),
        ),
        ColumnDefault::Constant(text) if column.kind.is_binary() && text.contains('\u{fffd}') => {
            push(
                format!("the default of column {name} holds bytes that are not UTF-8"),
                "TiDB shows such a default only mutilated, so that it cannot be carried",
                format!("take the default away on the source, or {}", exclude(table)),
            )
        }
        _ => {}
    }
    if let Some(generation) = &column.generation
        && let Some(other) = reads_generated(table, &generation.expression)
    {
        push(
            format!("generated column {name} reads generated column {other}"),
            "OceanBase computes generated columns from plain ones only",
            format!(
                "write out the expression on the source, or {}",
                exclude(table)
            ),
        );
    }
    if column.kind == Kind::Vector {
        let dimension = column.column_type.split(['(', ')']).nth(1);
        match dimension.and_then(|text| text.parse::<u32>().ok()) {
            None => push(
                format!("column {name} is a VECTOR of any dimension"),
                "OceanBase wants a dimension, which all its vectors have",
                format!("give it one on the source, or {}", exclude(table)),
            ),
            Some(dimension) if dimension > VECTOR_MAX => push(
                format!("column {name} is a VECTOR of {dimension} dimensions"),
                "OceanBase makes vectors of 16,000 dimensions at most",
                exclude(table),
            ),
            Some(_) if column.generation.is_some() => push(
                format!("generated column {name} is a VECTOR"),
                "OceanBase computes no vectors",
                exclude(table),
            ),
            Some(_) => {}
        }
    }
    if column.kind.is_numbered() && has_many_members(&column.kind) {
        push(
            format!(
                "column {name} is a SET of more than {MEMBERS_MAX} members with an empty label"
            ),
            "such a value is told by its number, which TiDB computes as a double",
            exclude(table),
        );
    }
    if has_ambiguous_label(&column.kind) {
        push(
            format!("column {name} has a label with a backslash"),
            "TiDB prints a line break or NUL in a label as it prints a backslash before n, r or 0",
            exclude(table),
        );
    }
}

/// Returns the advice to leave a kind of definition out.
pub(super) fn left_out(kind: &str, table: &Table) -> String {
    format!(
        "leave_out = [\"{kind}\"] under [schema] makes the target without it; or {}",
        exclude(table)
    )
}

/// Tells whether OceanBase takes no default for a column of this type.
fn has_no_default_on_target(column: &Column) -> bool {
    let word = column.column_type.to_ascii_lowercase();
    matches!(column.kind, Kind::Json | Kind::Vector)
        || word.ends_with("text")
        || word.ends_with("blob")
}

/// Returns a generated column that an expression reads.
fn reads_generated(table: &Table, expression: &str) -> Option<String> {
    let generated = |name: &String| {
        let place = table.position(name);
        place.is_some_and(|place| table.columns[place].generation.is_some())
    };
    named_columns(expression).into_iter().find(generated)
}

/// Finds collations that the target lacks, once for the table and each column.
fn collation_obstacles(table: &Table, collations: &BTreeSet<String>, found: &mut Vec<Obstacle>) {
    let own = table
        .collation
        .iter()
        .map(|own| (own, "its default".to_owned()));
    let of_columns = table.columns.iter().filter_map(|column| {
        let collation = column.collation.as_ref()?;
        Some((collation, format!("column {}", column.name)))
    });
    for (collation, where_) in own.chain(of_columns) {
        if collations.contains(collation) {
            continue;
        }
        let choice = ["utf8mb4_general_ci", "utf8mb4_bin"]
            .into_iter()
            .filter(|known| collations.contains(*known))
            .map(|known| format!("collations = {{ {collation} = \"{known}\" }}"))
            .collect::<Vec<_>>()
            .join(" or ");
        found.push(Obstacle {
            what: format!("{where_} has collation {collation}"),
            why: "the target does not know this collation: whatever takes its place sorts and \
                  matches differently, and a unique key may then refuse rows, or let in more"
                .to_owned(),
            fix: format!("choose under [schema]: {choice}; or {}", exclude(table)),
        });
    }
}

fn index_obstacles(table: &Table, index: &Index, found: &mut Vec<Obstacle>) {
    let mut push = |what: String, why: &str, fix: String| {
        let why = why.to_owned();
        found.push(Obstacle { what, why, fix });
    };
    let expressions = index
        .parts
        .iter()
        .filter_map(|part| part.expression.as_deref());
    for expression in expressions {
        if let Some(column) = reads_generated(table, expression) {
            push(
                format!(
                    "index {} is on an expression of generated column {column}",
                    index.name
                ),
                "OceanBase makes no index on an expression of a generated column",
                left_out("expression-indexes", table),
            );
        }
    }
    if index.name != "PRIMARY" {
        return;
    }
    for column in table
        .key()
        .iter()
        .filter(|column| has_many_members(&column.kind))
    {
        push(
            format!(
                "its key has column {}, a SET of more than {MEMBERS_MAX} members",
                column.name
            ),
            "both servers compare such values as doubles, which cannot tell all of them apart",
            exclude(table),
        );
    }
    let columns = index.parts.iter().filter_map(|part| part.column.as_deref());
    for name in columns {
        let place = table.position(name);
        if place.is_some_and(|place| table.columns[place].generation.is_some()) {
            push(
                format!("generated column {name} belongs to the primary key"),
                "OceanBase takes no generated column into a primary key",
                exclude(table),
            );
        }
    }
}

/// The functions that OceanBase takes in the expression of a partition, as it was seen to.
const PARTITION_FUNCTIONS: [&str; 23] = [
    "abs",
    "ceiling",
    "dayofmonth",
    "dayofweek",
    "dayofyear",
    "extract",
    "floor",
    "hour",
    "microsecond",
    "minute",
    "mod",
    "month",
    "quarter",
    "second",
    "time_to_sec",
    "to_days",
    "to_seconds",
    "unix_timestamp",
    "weekday",
    "year",
    "yearweek",
    "ceil",
    "day",
];

fn partition_obstacles(table: &Table, partitioning: &Partitioning, found: &mut Vec<Obstacle>) {
    let mut push = |what: String, why: &str| {
        let (why, fix) = (why.to_owned(), left_out("partitions", table));
        found.push(Obstacle { what, why, fix });
    };
    let method = partitioning.method.as_str();
    let known = [
        "RANGE",
        "RANGE COLUMNS",
        "LIST",
        "LIST COLUMNS",
        "HASH",
        "KEY",
    ];
    if !known.contains(&method) {
        push(
            format!("it is partitioned by {method}"),
            "rowproof does not know this kind of partitions",
        );
    }
    let functions = called_functions(&partitioning.expression);
    for function in functions {
        if !PARTITION_FUNCTIONS.contains(&function.as_str()) {
            push(
                format!("it is partitioned by the function {function}"),
                "OceanBase does not partition by this function",
            );
        }
    }
    let primary = table.indexes.iter().find(|index| index.name == "PRIMARY");
    if let Some(primary) = primary {
        let covers = |column: &String| {
            let same = |name: &str| name.eq_ignore_ascii_case(column);
            primary
                .parts
                .iter()
                .any(|part| part.column.as_deref().is_some_and(same))
        };
        if !named_columns(&partitioning.expression).iter().all(covers) {
            push(
                "its primary key is global: it lacks a column by which the table is partitioned"
                    .to_owned(),
                "OceanBase wants every such column in the primary key; other unique keys may lack \
                 them and become global indexes",
            );
        }
    }
}

/// Lists what is carried otherwise than the source has it, or not at all, by choice or because only
/// TiDB knows it. `create` is what TiDB prints for SHOW CREATE TABLE.
pub fn notices(
    table: &Table,
    create: &str,
    choices: &Choices,
    collations: &BTreeSet<String>,
) -> Vec<Obstacle> {
    let adapted = choices.adapt(table, collations);
    let mut found = Vec::new();
    let mut push = |what: String, why: &str, fix: &str| {
        let (why, fix) = (why.to_owned(), fix.to_owned());
        found.push(Obstacle { what, why, fix });
    };
    for (mark, what, why) in ONLY_TIDB {
        if create.contains(mark) {
            push(
                format!("{what} is dropped on purpose"),
                why,
                "nothing, if the application does not rely on it",
            );
        }
    }
    for column in &adapted.columns {
        let own = table
            .position(&column.name)
            .map(|place| &table.columns[place]);
        let before = own.and_then(|own| own.collation.as_ref());
        if let (Some(before), Some(after)) = (before, &column.collation)
            && before != after
        {
            push(
                format!("column {}: {before} becomes {after}", column.name),
                "texts are the same; how they sort, match and count as duplicates may not be",
                "nothing, if that is wanted; a unique key that refuses rows stops the load",
            );
        }
    }
    for what in left_out_of(table, &adapted) {
        push(
            format!("{what} is left out"),
            "[schema] leave_out in the task file says so",
            "nothing, if that is wanted",
        );
    }
    let comments = adapted
        .features
        .partitioning
        .iter()
        .flat_map(|by| &by.partitions);
    if comments
        .into_iter()
        .any(|partition| !partition.comment.is_empty())
    {
        push(
            "the comments of its partitions are dropped on purpose".to_owned(),
            "OceanBase knows no comments on partitions",
            "nothing",
        );
    }
    if table.features.auto_random.is_some() {
        push(
            "its AUTO_RANDOM key becomes AUTO_INCREMENT".to_owned(),
            "OceanBase knows no AUTO_RANDOM; new values follow above all that TiDB may have made",
            "nothing; partition the table by HASH if one growing key is too hot a spot",
        );
    }
    found
}

/// What only TiDB knows: how SHOW CREATE TABLE shows it, its name, and what its absence means.
const ONLY_TIDB: [(&str, &str, &str); 10] = [
    (
        "  VECTOR INDEX ",
        "a vector index",
        "the two servers know different ones; make it on the target when the rows are in: CREATE VECTOR \
         INDEX ... WITH (distance = cosine, type = hnsw)",
    ),
    (
        "/*T![ttl]",
        "TTL",
        "rows that TiDB's TTL deletes are deleted on the target too, through the feed; after the \
         cutover nothing deletes them",
    ),
    (
        "/*T![placement]",
        "a placement policy",
        "where replicas live is set on OceanBase itself",
    ),
    ("/* CACHED ON */", "CACHE", "OceanBase caches by itself"),
    (
        "SHARD_ROW_ID_BITS",
        "SHARD_ROW_ID_BITS",
        "OceanBase spreads rows by partitions",
    ),
    (
        "PRE_SPLIT_REGIONS",
        "PRE_SPLIT_REGIONS",
        "OceanBase has no regions",
    ),
    (
        "/*T![auto_id_cache]",
        "AUTO_ID_CACHE",
        "OceanBase has auto_increment_cache_size",
    ),
    (
        "/*T![force_inc]",
        "a forced AUTO_INCREMENT",
        "the target's counter is set by itself",
    ),
    (
        "/*T![attributes]",
        "ATTRIBUTES",
        "they steer TiDB's regions",
    ),
    (
        "/*T![resource_group]",
        "a resource group",
        "OceanBase has its own resource units",
    ),
];

/// Tells whether SHOW CREATE TABLE shows a table whose rows no other session sees.
pub fn is_temporary(create: &str) -> bool {
    create.starts_with("CREATE GLOBAL TEMPORARY TABLE")
}

fn left_out_of(table: &Table, adapted: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let (before, after) = (&table.features, &adapted.features);
    if before.foreign_keys.len() > after.foreign_keys.len() {
        let names = before
            .foreign_keys
            .iter()
            .map(|key| format!("foreign key {}", key.name));
        found.extend(names);
    }
    if before.checks.len() > after.checks.len() {
        found.extend(
            before
                .checks
                .iter()
                .map(|check| format!("CHECK {}", check.name)),
        );
    }
    if before.partitioning.is_some() && after.partitioning.is_none() {
        found.push("its partitioning".to_owned());
    }
    for index in &table.indexes {
        if !adapted.indexes.iter().any(|other| other.name == index.name) {
            found.push(format!("index {}", index.name));
        }
    }
    for column in &adapted.columns {
        let own = table
            .position(&column.name)
            .map(|place| &table.columns[place].default);
        if own.is_some_and(|own| *own != column.default) {
            found.push(format!("the default of column {}", column.name));
        }
    }
    found
}

/// The most dimensions of a VECTOR that OceanBase was seen to take: more are error 1235.
const VECTOR_MAX: u32 = 16_000;

/// The most members of a SET whose number a double holds: both servers compute with it as one, and
/// TiDB fails on the 64th.
const MEMBERS_MAX: usize = 53;

fn has_many_members(kind: &Kind) -> bool {
    matches!(kind, Kind::Set(labels) if labels.len() > MEMBERS_MAX)
}

fn has_ambiguous_label(kind: &Kind) -> bool {
    let ambiguous = |label: &String| {
        ["\\n", "\\r", "\\0"]
            .iter()
            .any(|pair| label.contains(pair))
    };
    match kind {
        Kind::Enum(labels) | Kind::Set(labels) => labels.iter().any(ambiguous),
        _ => false,
    }
}

/// Tells whether two columns hold the same family of values. Labels are compared joined, because
/// OceanBase prints them so that they cannot always be told apart.
pub fn same_values(source: &Kind, target: &Kind) -> bool {
    match (source, target) {
        (Kind::Enum(left), Kind::Enum(right)) | (Kind::Set(left), Kind::Set(right)) => {
            left.join("','") == right.join("','")
        }
        _ => source == target,
    }
}

/// Lists what keeps the rows of two definitions of one table from being compared: a column that
/// one of them lacks, or that holds another family of values.
pub fn compare(source: &Table, target: &Table) -> Vec<String> {
    let mut differences = Vec::new();
    for column in &source.columns {
        match target
            .position(&column.name)
            .map(|place| &target.columns[place])
        {
            None => differences.push(format!("column {} is missing on the target", column.name)),
            Some(other) if !same_values(&column.kind, &other.kind) => differences.push(format!(
                "column {} is {} on the source and {} on the target",
                column.name, column.column_type, other.column_type
            )),
            Some(_) => {}
        }
    }
    for column in source.key() {
        let other = target
            .position(&column.name)
            .map(|place| &target.columns[place].collation);
        if other.is_some_and(|other| *other != column.collation) {
            differences.push(format!("key column {} has another collation", column.name));
        }
    }
    for column in &target.columns {
        if source.position(&column.name).is_none() {
            differences.push(format!("column {} exists on the target only", column.name));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_oceanbase_prints_unquoted_are_the_same() {
        let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        let source = Kind::Enum(labels(&["it's", "b"]));
        assert!(same_values(&source, &Kind::Enum(labels(&["it's','b"]))));
        assert!(!same_values(&source, &Kind::Enum(labels(&["its", "b"]))));
        assert!(!same_values(&source, &Kind::Set(labels(&["it's", "b"]))));
    }
}
