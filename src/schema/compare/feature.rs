//! Constraints, partitions, and what the table says of itself.

use super::{Alike, Comparison, NOTHING, Spellings, Weight, drop_clause};
use crate::schema::create::{add_foreign_key_clause, check_line, partition_clause};
use crate::schema::expression::constants_as_printed;
use crate::schema::{Check, Partitioning, Table, same_expression, same_key};

/// Pairs the conditions of CHECK constraints, and the expressions of partitions.
pub fn spellings(wanted: &Table, made: &Table, found: &mut Spellings) {
    for check in &wanted.features.checks {
        let same = |other: &&Check| other.name.eq_ignore_ascii_case(&check.name);
        if let Some(made) = made.features.checks.iter().find(same) {
            found.add(&check.condition, &made.condition);
        }
    }
    if let (Some(one), Some(other)) = (&wanted.features.partitioning, &made.features.partitioning) {
        found.add(&one.expression, &other.expression);
    }
}

/// Compares what stands beside columns and indexes.
pub fn compare(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    compare_checks(wanted, found, comparison);
    compare_foreign_keys(wanted, found, comparison);
    compare_partitions(wanted, found, comparison);
    if wanted.collation.is_some() && wanted.collation != found.collation {
        let collation = wanted.collation.clone().unwrap_or_default();
        comparison.push(
            Weight::Lesser,
            format!("its default collation is not {collation}"),
            &[format!("DEFAULT COLLATE {collation}")],
        );
    }
    if wanted.comment != found.comment {
        let text = crate::apply::text_literal(wanted.comment.as_bytes());
        let what = "its comment is another".to_owned();
        comparison.push(Weight::Lesser, what, &[format!("COMMENT {text}")]);
    }
}

fn compare_checks(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    let spellings = comparison.spellings;
    let judge = |one: &Check, other: &Check| {
        spellings
            .judge(&one.condition, &other.condition)
            .max(Alike::when(one.enforced == other.enforced))
    };
    let same = |one: &Check, other: &Check| judge(one, other) == Alike::Same;
    let named = |one: &Check, other: &Check| one.name.eq_ignore_ascii_case(&other.name);
    // What it demands may be more than the source's does.
    let demanding = |check: &Check| match check.enforced {
        true => Weight::Loss,
        false => Weight::Definition,
    };
    let (ours, theirs) = (&wanted.features.checks, &found.features.checks);
    for check in ours {
        if theirs.iter().any(|other| same(check, other)) {
            continue;
        }
        let add = format!("ADD {}", check_line(check));
        match theirs.iter().find(|other| named(check, other)) {
            Some(other) => comparison.push(
                judge(check, other)
                    .weight(demanding(other))
                    .unwrap_or(Weight::Lesser),
                format!("CHECK {} is another on the target", check.name),
                &[drop_clause("CONSTRAINT", &other.name), add],
            ),
            None => comparison.push(
                Weight::Definition,
                format!("CHECK {} is missing on the target", check.name),
                &[add],
            ),
        }
    }
    for check in theirs {
        if !ours.iter().any(|one| same(one, check) || named(one, check)) {
            comparison.push(
                demanding(check),
                format!("CHECK {} is on the target only", check.name),
                &[drop_clause("CONSTRAINT", &check.name)],
            );
        }
    }
}

fn compare_foreign_keys(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    let (ours, theirs) = (&wanted.features.foreign_keys, &found.features.foreign_keys);
    for key in theirs {
        if !ours.iter().any(|one| same_key(one, key)) {
            comparison.push(
                Weight::Definition,
                format!("foreign key {} is on the target only", key.name),
                &[drop_clause("FOREIGN KEY", &key.name)],
            );
        }
    }
    for key in ours {
        if !theirs.iter().any(|other| same_key(key, other)) {
            comparison.push(
                Weight::Definition,
                format!("foreign key {} is missing on the target", key.name),
                &[add_foreign_key_clause(key)],
            );
        }
    }
}

fn compare_partitions(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    let (ours, theirs) = (&wanted.features.partitioning, &found.features.partitioning);
    // Without a partition for them, rows are refused.
    let refusing = theirs.as_ref().is_some_and(Partitioning::has_values);
    let different = match refusing {
        true => Weight::Loss,
        false => Weight::Definition,
    };
    let alike = match (ours, theirs) {
        (Some(one), Some(other)) => judge_partitions(one, other, comparison.spellings),
        (one, other) => Alike::when(one.is_none() && other.is_none()),
    };
    let Some(weight) = alike.weight(different) else {
        return;
    };
    match ours {
        Some(ours) => comparison.push(
            weight,
            "it is partitioned otherwise".to_owned(),
            &[partition_clause(ours)],
        ),
        None => comparison.push(
            weight,
            "it is partitioned on the target only".to_owned(),
            &NOTHING,
        ),
    }
}

fn judge_partitions(one: &Partitioning, other: &Partitioning, spellings: &Spellings) -> Alike {
    let in_order = one.method.starts_with("RANGE");
    let mut pairs = one.partitions.iter().zip(&other.partitions);
    let same = one.method.eq_ignore_ascii_case(&other.method)
        && one.partitions.len() == other.partitions.len()
        && pairs.all(|(a, b)| {
            a.name.eq_ignore_ascii_case(&b.name) && same_bounds(&a.values, &b.values, in_order)
        });
    Alike::when(same).max(spellings.judge(&one.expression, &other.expression))
}

/// Compares the bounds of a partition. OceanBase lists the values of LIST in an order of its own,
/// and prints texts without doubling their quotes.
fn same_bounds(one: &str, other: &str, in_order: bool) -> bool {
    if same_expression(one, other) {
        return true;
    }
    let printed = constants_as_printed(one);
    match in_order {
        true => printed.join(",") == other,
        false => is_list_of(printed, other),
    }
}

/// Tells whether a text lists exactly these items, in any order.
fn is_list_of(mut items: Vec<String>, mut text: &str) -> bool {
    // Where one item begins another one, the longer is the one that is meant.
    items.sort_by_key(|item| std::cmp::Reverse(item.len()));
    while !items.is_empty() {
        let next = items.iter().position(|item| {
            let rest = text.strip_prefix(item.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        });
        let Some(next) = next else {
            return false;
        };
        text = &text[items.remove(next).len()..];
        text = text.strip_prefix(',').unwrap_or(text).trim_start();
    }
    text.is_empty()
}
