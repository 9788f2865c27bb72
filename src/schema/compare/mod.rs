//! The comparison of a wanted definition with the one that the target has, and the DDL that mends it.
//!
//! What the two servers only print differently is no difference: display widths, the scale of a
//! default, the precision of CURRENT_TIMESTAMP, quotes in labels, and expressions, which OceanBase
//! rewrites: there the target's text is known from the moment at which rowproof made it.

mod column;
mod feature;
mod index;

use super::{Column, Table, quote};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How much a difference between two definitions matters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It changes nothing that rows or statements show: a comment, a default charset.
    Lesser,
    /// The target prints an expression otherwise, and nobody knows whether it is another one.
    Unclear,
    /// The definitions do different things: a default, an index, a constraint, partitions.
    Definition,
    /// The target cannot hold every row that the source may.
    Loss,
}

/// Something in which two definitions differ.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SchemaDifference {
    /// How much it matters.
    pub weight: Weight,
    /// What differs, in words.
    pub what: String,
    /// The statements that mend the target; empty where none can.
    pub mend: Vec<String>,
}

/// What may be said of a table's definition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemaWord {
    /// Both were read, and nothing but lesser things differs.
    Equal,
    /// They differ.
    Different,
    /// They were not compared.
    Unproven,
}

/// The verdict on a table's definition: one of its own, beside the verdict on its rows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SchemaVerdict {
    /// The verdict.
    pub verdict: SchemaWord,
    /// Why they were not compared; empty otherwise.
    pub reason: String,
    /// In what they differ, the weightiest first.
    pub differences: Vec<SchemaDifference>,
}

impl SchemaVerdict {
    /// Judges what was found.
    pub fn of(mut differences: Vec<SchemaDifference>) -> Self {
        differences.sort_by_key(|found| std::cmp::Reverse(found.weight));
        let heaviest = differences.first().map(|found| found.weight);
        let (verdict, reason) = match heaviest {
            None | Some(Weight::Lesser) => (SchemaWord::Equal, ""),
            Some(Weight::Unclear) => (
                SchemaWord::Unproven,
                "expressions that rowproof did not make itself must be compared by eye",
            ),
            Some(Weight::Definition | Weight::Loss) => (SchemaWord::Different, ""),
        };
        SchemaVerdict {
            verdict,
            reason: reason.to_owned(),
            differences,
        }
    }

    /// Says that the target lacks the table, which this statement makes.
    pub fn missing(create: String) -> Self {
        SchemaVerdict::of(vec![SchemaDifference {
            weight: Weight::Loss,
            what: "the target has no such table".to_owned(),
            mend: vec![create],
        }])
    }

    /// Says that the definitions were not compared.
    pub fn unproven(reason: impl Into<String>) -> Self {
        SchemaVerdict {
            verdict: SchemaWord::Unproven,
            reason: reason.into(),
            differences: Vec::new(),
        }
    }
}

/// Expressions of the source, each with what the target printed right after rowproof had made
/// something from it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spellings(BTreeSet<(String, String)>);

impl Spellings {
    /// Notes that the target prints `source` as `target`.
    pub fn add(&mut self, source: impl Into<String>, target: impl Into<String>) {
        self.0.insert((source.into(), target.into()));
    }

    /// Returns all pairs.
    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells what to make of two expressions. The target may print the same one otherwise; only
    /// where it is known how it prints this one can they be told apart.
    pub(in crate::schema) fn judge(&self, source: &str, target: &str) -> Alike {
        let mut known = self.0.iter().filter(|(one, _)| one == source).peekable();
        if super::same_expression(source, target) {
            Alike::Same
        } else if known.peek().is_none() {
            Alike::Unclear
        } else if known.any(|(_, other)| other == target) {
            Alike::Same
        } else {
            Alike::Other
        }
    }
}

/// Whether two texts mean one expression.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::schema) enum Alike {
    Same,
    Unclear,
    Other,
}

impl Alike {
    /// Tells whether two things that can be compared are the same.
    pub(in crate::schema) fn when(same: bool) -> Alike {
        if same { Alike::Same } else { Alike::Other }
    }

    /// Returns how much it matters, if things weigh this much when they surely differ.
    pub(in crate::schema) fn weight(self, different: Weight) -> Option<Weight> {
        match self {
            Alike::Same => None,
            Alike::Unclear => Some(Weight::Unclear),
            Alike::Other => Some(different),
        }
    }
}

/// Pairs the expressions of a definition with what the target prints for them, right after it was
/// made.
pub fn spellings(wanted: &Table, made: &Table) -> Spellings {
    let mut found = Spellings::default();
    column::spellings(wanted, made, &mut found);
    index::spellings(wanted, made, &mut found);
    feature::spellings(wanted, made, &mut found);
    found
}

/// Lists in what the target's definition differs from the wanted one, which must be in terms that
/// the target knows, see [`super::Choices::adapt`].
pub fn differences(wanted: &Table, found: &Table, spellings: &Spellings) -> Vec<SchemaDifference> {
    let mut comparison = Comparison {
        table: wanted.target.sql(),
        spellings,
        found: Vec::new(),
    };
    column::compare(wanted, found, &mut comparison);
    index::compare(wanted, found, &mut comparison);
    feature::compare(wanted, found, &mut comparison);
    comparison.found
}

/// The differences found so far.
struct Comparison<'a> {
    /// The target's name, quoted.
    table: String,
    spellings: &'a Spellings,
    found: Vec<SchemaDifference>,
}

impl Comparison<'_> {
    /// Notes a difference with the clauses of ALTER TABLE that mend it.
    fn push<C: AsRef<str>>(&mut self, weight: Weight, what: String, clauses: &[C]) {
        let alter = |clause: &C| format!("ALTER TABLE {} {}", self.table, clause.as_ref());
        let mend = clauses.iter().map(alter).collect();
        self.found.push(SchemaDifference { weight, what, mend });
    }
}

/// The clauses for a difference that no statement mends.
const NOTHING: [&str; 0] = [];

/// Finds a column of the other side.
fn other<'a>(table: &'a Table, column: &Column) -> Option<&'a Column> {
    table
        .position(&column.name)
        .map(|place| &table.columns[place])
}

/// Returns a list of columns in the order of the table.
fn in_order(table: &Table) -> Vec<&Column> {
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| column.ordinal);
    columns
}

fn drop_clause(word: &str, name: &str) -> String {
    format!("DROP {word} {}", quote(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::{column, part, table};
    use crate::schema::{
        Check, ForeignKey, Partition, Partitioning, RawColumn, RawIndexPart, TableName,
    };

    fn made_of(columns: Vec<RawColumn>, parts: Vec<RawIndexPart>) -> Table {
        table(TableName::new("s", "t"), columns, parts)
    }

    fn differences_of(wanted: &Table, found: &Table) -> Vec<(Weight, Vec<String>)> {
        let found = differences(wanted, found, &Spellings::default());
        found.into_iter().map(|of| (of.weight, of.mend)).collect()
    }

    /// A column with a default.
    fn with_default(column_type: &str, default: &str) -> RawColumn {
        let mut raw = column("d", 2, column_type, true);
        raw.default = Some(default.to_owned());
        raw
    }

    fn one(raw: RawColumn) -> Table {
        let id = column("id", 1, "int(11)", false);
        made_of(vec![id, raw], vec![part("PRIMARY", true, 1, "id")])
    }

    #[test]
    fn what_only_prints_differently_is_no_difference() {
        let mut clock = with_default("datetime(3)", "CURRENT_TIMESTAMP(3)");
        clock.extra = "DEFAULT_GENERATED on update CURRENT_TIMESTAMP(3)".to_owned();
        let mut bare = with_default("datetime(3)", "CURRENT_TIMESTAMP");
        bare.extra = "on update current_timestamp(3)".to_owned();
        let mut expression = with_default("varchar(40)", "uuid()");
        expression.extra = "DEFAULT_GENERATED".to_owned();
        let mut upper = with_default("varchar(40)", "UUID()");
        upper.extra = "DEFAULT_GENERATED".to_owned();
        for (source, target) in [
            (
                column("i", 2, "int unsigned", true),
                column("I", 2, "int(10) unsigned", true),
            ),
            (
                column("y", 2, "year(4)", true),
                column("y", 2, "year", true),
            ),
            // A scale at which OceanBase would round is left out when the table is made.
            (
                column("f", 2, "double(9,3) unsigned", true),
                column("f", 2, "double unsigned", true),
            ),
            (
                with_default("decimal(5,2)", "1.5"),
                with_default("decimal(5,2)", "1.50"),
            ),
            (
                with_default("float", "15000000000"),
                with_default("float", "1.5e10"),
            ),
            (
                with_default("bit(9)", "b'101'"),
                with_default("bit(9)", "b'000000101'"),
            ),
            (
                with_default("binary(4)", "a\0b\0"),
                with_default("binary(4)", "a\0b"),
            ),
            (
                with_default("timestamp(6)", "2020-01-01 00:00:00.500000"),
                with_default("timestamp(6)", "2020-01-01 00:00:00.5"),
            ),
            (clock, bare),
            (expression, upper),
            (
                column("e", 2, "enum('it''s','b')", true),
                column("e", 2, "enum('it's','b')", true),
            ),
        ] {
            assert_eq!(differences_of(&one(source), &one(target)), []);
        }
    }

    #[test]
    fn a_scale_on_the_target_rounds_whatever_the_source_has() {
        let found = one(column("f", 2, "double(9,3)", true));
        for wanted in ["double", "double(9,3)"] {
            let wanted = one(column("f", 2, wanted, true));
            assert_eq!(differences_of(&wanted, &found).len(), 1);
        }
    }

    #[test]
    fn what_loses_values_weighs_more_than_what_holds_more() {
        for (source, target, weight) in [
            ("varchar(20)", "varchar(10)", Weight::Loss),
            ("varchar(10)", "varchar(20)", Weight::Definition),
            ("int(11)", "bigint(20)", Weight::Definition),
            ("bigint(20)", "int(11)", Weight::Loss),
            ("int(11)", "int(10) unsigned", Weight::Loss),
            ("int(10) unsigned", "bigint(20)", Weight::Definition),
            ("decimal(9,3)", "decimal(9,2)", Weight::Loss),
            ("decimal(9,3)", "decimal(10,4)", Weight::Definition),
            ("decimal(9,3)", "decimal(10,5)", Weight::Loss),
            ("datetime(3)", "datetime", Weight::Loss),
            ("datetime", "datetime(3)", Weight::Definition),
            ("text", "mediumtext", Weight::Definition),
            ("longtext", "text", Weight::Loss),
            ("varchar(20)", "text", Weight::Definition),
            ("timestamp", "datetime", Weight::Loss),
            ("enum('a','b')", "enum('a')", Weight::Loss),
            ("double", "float", Weight::Loss),
        ] {
            let (wanted, found) = (
                one(column("v", 2, source, true)),
                one(column("v", 2, target, true)),
            );
            let all = differences_of(&wanted, &found);
            assert_eq!(all.len(), 1, "{source} {target}");
            assert_eq!(all[0].0, weight, "{source} {target}");
            assert!(all[0].1[0].starts_with("ALTER TABLE `s`.`t` MODIFY COLUMN `v` "));
        }
    }

    #[test]
    fn defaults_and_nullability_are_compared() {
        let wanted = one(with_default("varchar(9)", "a"));
        for found in [
            with_default("varchar(9)", "A"),
            column("d", 2, "varchar(9)", true),
        ] {
            assert_eq!(
                differences_of(&wanted, &one(found))[0].0,
                Weight::Definition
            );
        }
        // A text that looks like a function is not one.
        let text = one(with_default("varchar(40)", "uuid()"));
        let mut call = with_default("varchar(40)", "uuid()");
        call.extra = "DEFAULT_GENERATED".to_owned();
        assert_eq!(differences_of(&text, &one(call)).len(), 1);
        let nullable = one(column("v", 2, "int(11)", true));
        let filled = one(column("v", 2, "int(11)", false));
        assert_eq!(differences_of(&nullable, &filled)[0].0, Weight::Loss);
        assert_eq!(differences_of(&filled, &nullable)[0].0, Weight::Definition);
    }

    #[test]
    fn columns_that_one_side_lacks_are_added_and_dropped() {
        let wanted = one(column("a", 2, "int(11)", true));
        let mut extra = column("b", 2, "int(11)", true);
        let found = differences_of(&wanted, &one(extra.clone()));
        assert_eq!(
            found,
            [
                (
                    Weight::Loss,
                    vec!["ALTER TABLE `s`.`t` ADD COLUMN `a` int(11) NULL".to_owned()]
                ),
                (
                    Weight::Definition,
                    vec!["ALTER TABLE `s`.`t` DROP COLUMN `b`".to_owned()]
                ),
            ]
        );
        // Nobody would give it a value.
        extra.nullable = false;
        assert_eq!(differences_of(&wanted, &one(extra))[1].0, Weight::Loss);
    }

    #[test]
    fn indexes_are_compared_by_name_and_content() {
        let columns = || {
            vec![
                column("a", 1, "int(11)", false),
                column("b", 2, "int(11)", true),
            ]
        };
        let key = || part("PRIMARY", true, 1, "a");
        let wanted = made_of(columns(), vec![key(), part("k", false, 1, "b")]);
        let unique = made_of(columns(), vec![key(), part("k", true, 1, "b")]);
        let bare = made_of(columns(), vec![key()]);
        assert_eq!(differences_of(&wanted, &wanted), []);
        assert_eq!(
            differences_of(&wanted, &bare),
            [(
                Weight::Definition,
                vec!["ALTER TABLE `s`.`t` ADD KEY `k` (`b`)".to_owned()]
            )]
        );
        // A unique key that the source does not have refuses rows that it has.
        assert_eq!(differences_of(&wanted, &unique)[0].0, Weight::Loss);
        assert_eq!(differences_of(&bare, &unique)[0].0, Weight::Loss);
        assert_eq!(differences_of(&bare, &wanted)[0].0, Weight::Definition);
        let mut hidden = part("k", false, 1, "b");
        hidden.visible = false;
        let hidden = made_of(columns(), vec![key(), hidden]);
        assert_eq!(
            differences_of(&wanted, &hidden)[0].1,
            ["ALTER TABLE `s`.`t` ALTER INDEX `k` VISIBLE"]
        );
        let keyless = made_of(columns(), vec![]);
        assert_eq!(
            differences_of(&wanted, &keyless)[0].1,
            ["ALTER TABLE `s`.`t` ADD PRIMARY KEY (`a`)"]
        );
    }

    #[test]
    fn expressions_are_known_by_what_the_target_printed_when_it_was_made() {
        let computed = |expression: &str| {
            let mut raw = column("g", 2, "int(11)", true);
            raw.extra = "VIRTUAL GENERATED".to_owned();
            raw.generation = expression.to_owned();
            let mut table = one(raw);
            table.features.checks.push(Check {
                name: "c".to_owned(),
                condition: expression.to_owned(),
                enforced: true,
            });
            table
        };
        let (wanted, made) = (
            computed("if(`id`, 1, 2)"),
            computed("(case when `id` then 1 else 2 end)"),
        );
        let verdict = |found: &Table, known: &Spellings| {
            SchemaVerdict::of(differences(&wanted, found, known)).verdict
        };
        assert_eq!(verdict(&made, &Spellings::default()), SchemaWord::Unproven);
        let known = spellings(&wanted, &made);
        assert_eq!(differences(&wanted, &made, &known), []);
        let changed = computed("(case when `id` then 1 else 3 end)");
        assert_eq!(differences(&wanted, &changed, &known).len(), 2);
        assert_eq!(verdict(&changed, &known), SchemaWord::Different);
    }

    #[test]
    fn constraints_and_partitions_are_compared() {
        let id = || column("id", 1, "int(11)", false);
        let plain = made_of(vec![id()], vec![part("PRIMARY", true, 1, "id")]);
        let mut full = plain.clone();
        full.features.foreign_keys.push(ForeignKey {
            name: "f".to_owned(),
            columns: vec!["id".to_owned()],
            parent: TableName::new("s", "p"),
            parent_columns: vec!["a".to_owned()],
            on_update: "NO ACTION".to_owned(),
            on_delete: "CASCADE".to_owned(),
        });
        let partition = |name: &str, values: &str| Partition {
            name: name.to_owned(),
            values: values.to_owned(),
            comment: String::new(),
        };
        full.features.partitioning = Some(Partitioning {
            method: "LIST COLUMNS".to_owned(),
            expression: "`id`".to_owned(),
            partitions: vec![partition("p0", "1,'a''b',NULL"), partition("p1", "DEFAULT")],
        });
        assert_eq!(differences_of(&full, &plain).len(), 2);
        assert_eq!(differences_of(&plain, &full).len(), 2);
        let mut printed = full.clone();
        printed.features.foreign_keys[0].name = "other".to_owned();
        printed.features.foreign_keys[0].on_update = "RESTRICT".to_owned();
        let by = printed.features.partitioning.as_mut().expect("partitions");
        by.expression = "id".to_owned();
        by.partitions[0].values = "NULL,1,'a'b'".to_owned();
        assert_eq!(differences_of(&full, &printed), []);
        let by = printed.features.partitioning.as_mut().expect("partitions");
        by.partitions[0].values = "NULL,2,'a'b'".to_owned();
        let found = differences_of(&full, &printed);
        assert_eq!(found[0].0, Weight::Loss);
        assert!(found[0].1[0].starts_with("ALTER TABLE `s`.`t` PARTITION BY LIST COLUMNS"));
    }

    #[test]
    fn comments_are_lesser_differences() {
        let plain = one(column("a", 2, "int(11)", true));
        let mut described = column("a", 2, "int(11)", true);
        described.comment = "what it is".to_owned();
        let mut described = one(described);
        described.comment = "what they are".to_owned();
        let found = differences(&described, &plain, &Spellings::default());
        assert_eq!(found.len(), 2);
        assert_eq!(SchemaVerdict::of(found).verdict, SchemaWord::Equal);
    }
}
