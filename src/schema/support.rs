//! What of a table rowproof cannot carry, and where two definitions keep rows from being compared.

use super::{ColumnDefault, Table};
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

/// Lists what keeps `table` from being migrated to a target that knows these `collations`.
pub fn obstacles(table: &Table, collations: &BTreeSet<String>) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let exclude = || format!("exclude {} under [tables]", table.name);
    for special in &table.special {
        found.push(Obstacle {
            what: special.clone(),
            why: "rowproof does not carry it yet and drops nothing silently".to_owned(),
            fix: exclude(),
        });
    }
    for column in &table.columns {
        let mut push = |what: String, why: &str| {
            found.push(Obstacle {
                what,
                why: why.to_owned(),
                fix: exclude(),
            });
        };
        if column.generated {
            push(
                format!("column {} is generated", column.name),
                "generated columns are not carried yet",
            );
        }
        if let ColumnDefault::Expression(_) = column.default {
            push(
                format!("the default of column {} is an expression", column.name),
                "defaults by expression are not carried yet",
            );
        }
        if has_empty_label(&column.kind) {
            push(
                format!("column {} has an empty label", column.name),
                "it cannot be told from the error value of the type",
            );
        }
        if has_ambiguous_label(&column.kind) {
            push(
                format!("column {} has a label with a backslash", column.name),
                "TiDB prints a line break or NUL in a label as it prints a backslash before n, r or 0",
            );
        }
        if let Some(collation) = &column.collation
            && !collations.contains(collation)
        {
            push(
                format!("column {} has collation {collation}", column.name),
                "the target does not know this collation: it would sort and match differently",
            );
        }
    }
    found
}

fn has_empty_label(kind: &Kind) -> bool {
    match kind {
        Kind::Enum(labels) | Kind::Set(labels) => labels.iter().any(String::is_empty),
        _ => false,
    }
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
fn same_values(source: &Kind, target: &Kind) -> bool {
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
