//! Indexes and keys.

use super::{Alike, Comparison, Spellings, Weight, drop_clause};
use crate::schema::create::index_line;
use crate::schema::{Index, IndexPart, Table, quote};

fn find<'a>(table: &'a Table, index: &Index) -> Option<&'a Index> {
    let same = |other: &&Index| other.name.eq_ignore_ascii_case(&index.name);
    table.indexes.iter().find(same)
}

/// Pairs the expressions of indexes.
pub fn spellings(wanted: &Table, made: &Table, found: &mut Spellings) {
    for index in &wanted.indexes {
        let parts = find(made, index)
            .map(|made| made.parts.as_slice())
            .unwrap_or_default();
        for (one, other) in index.parts.iter().zip(parts) {
            if let (Some(one), Some(other)) = (&one.expression, &other.expression) {
                found.add(one, other);
            }
        }
    }
}

/// Compares the indexes by name and content.
pub fn compare(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    for index in &wanted.indexes {
        match find(found, index) {
            None => {
                let mut mend = vec![format!("ADD {}", index_line(index))];
                // OceanBase adds it visible, whatever the first statement says.
                if index.invisible {
                    mend.push(format!("ALTER INDEX {} INVISIBLE", quote(&index.name)));
                }
                let what = format!("{} is missing on the target", named(index));
                comparison.push(Weight::Definition, what, &mend);
            }
            Some(other) => compare_index(index, other, comparison),
        }
    }
    for index in &found.indexes {
        if find(wanted, index).is_none() {
            comparison.push(
                // A unique key refuses rows that the source may have.
                if index.unique {
                    Weight::Loss
                } else {
                    Weight::Definition
                },
                format!("{} exists on the target only", named(index)),
                &[dropping(index)],
            );
        }
    }
}

fn named(index: &Index) -> String {
    match index.name.as_str() {
        "PRIMARY" => "the primary key".to_owned(),
        name => format!("index {name}"),
    }
}

fn dropping(index: &Index) -> String {
    match index.name.as_str() {
        "PRIMARY" => "DROP PRIMARY KEY".to_owned(),
        name => drop_clause("INDEX", name),
    }
}

fn compare_index(wanted: &Index, found: &Index, comparison: &mut Comparison<'_>) {
    let parts = wanted.parts.iter().zip(&found.parts);
    let alike = parts
        .map(|(one, other)| judge_part(one, other, comparison.spellings))
        .chain([Alike::when(
            wanted.unique == found.unique && wanted.parts.len() == found.parts.len(),
        )])
        .max()
        .unwrap_or(Alike::Same);
    let different = match found.unique {
        true => Weight::Loss,
        false => Weight::Definition,
    };
    if let Some(weight) = alike.weight(different) {
        comparison.push(
            weight,
            format!("{} is on something else", named(wanted)),
            &[dropping(found), format!("ADD {}", index_line(wanted))],
        );
        return;
    }
    if wanted.invisible != found.invisible {
        let word = if wanted.invisible {
            "INVISIBLE"
        } else {
            "VISIBLE"
        };
        comparison.push(
            Weight::Definition,
            format!("{} is not {}", named(wanted), word.to_lowercase()),
            &[format!("ALTER INDEX {} {word}", quote(&wanted.name))],
        );
    }
    if wanted.comment != found.comment {
        comparison.push(
            Weight::Lesser,
            format!("{} has another comment", named(wanted)),
            &[dropping(found), format!("ADD {}", index_line(wanted))],
        );
    }
}

fn judge_part(one: &IndexPart, other: &IndexPart, spellings: &Spellings) -> Alike {
    match (&one.expression, &other.expression) {
        (Some(one), Some(other)) => spellings.judge(one, other),
        (None, None) => {
            let column = |part: &IndexPart| part.column.as_ref().map(|name| name.to_lowercase());
            Alike::when(column(one) == column(other) && one.prefix == other.prefix)
        }
        _ => Alike::Other,
    }
}
