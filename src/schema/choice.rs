//! What the person chose for definitions that the target cannot take as they are.

use super::{ColumnDefault, Index, Table};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A kind of definition that may be left out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// Foreign keys.
    ForeignKeys,
    /// CHECK constraints.
    Checks,
    /// Indexes on expressions.
    ExpressionIndexes,
    /// Defaults that are expressions.
    ExpressionDefaults,
    /// Partitions: the table becomes a plain one.
    Partitions,
    /// Views.
    Views,
    /// Sequences.
    Sequences,
}

/// The choices of `[schema]` in the task file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// For each collation that the target lacks, the one that takes its place.
    #[serde(default)]
    pub collations: BTreeMap<String, String>,
    /// What is not made on the target.
    #[serde(default)]
    pub leave_out: BTreeSet<LeftOut>,
    /// Whether plain secondary indexes are made when the rows are there.
    #[serde(default)]
    pub indexes_after_load: bool,
}

/// Collations that order and match texts as another one does, in a charset that holds all of theirs:
/// where the target lacks the first, the second takes its place without being asked for.
const SAME_ORDER: [(&str, &str); 6] = [
    ("utf8_bin", "utf8mb4_bin"),
    ("utf8mb3_bin", "utf8mb4_bin"),
    ("ascii_bin", "utf8mb4_bin"),
    ("latin1_bin", "utf8mb4_bin"),
    ("utf8_general_ci", "utf8mb4_general_ci"),
    ("utf8mb3_general_ci", "utf8mb4_general_ci"),
];

impl Choices {
    /// Tells whether something of this kind is not made.
    pub fn leaves_out(&self, kind: LeftOut) -> bool {
        self.leave_out.contains(&kind)
    }

    /// Returns the collation that a target which knows only `known` shall use, or none if nothing
    /// was chosen for one that it lacks.
    pub fn collation<'a>(&'a self, wanted: &'a str, known: &BTreeSet<String>) -> Option<&'a str> {
        if known.contains(wanted) {
            return Some(wanted);
        }
        let chosen = self.collations.get(wanted).map(String::as_str);
        let alike = SAME_ORDER.iter().find(|(lacking, _)| *lacking == wanted);
        chosen
            .or_else(|| alike.map(|(_, other)| *other))
            .filter(|other| known.contains(*other))
    }

    /// Returns the definition that the target is to have, in what it knows, without what is left
    /// out. A collation without a choice stays and is an obstacle.
    pub fn adapt(&self, table: &Table, known: &BTreeSet<String>) -> Table {
        let mut table = table.clone();
        table.collation = table.collation.map(|own| self.adapted(own, known));
        for column in &mut table.columns {
            let Some(own) = column.collation.take() else {
                continue;
            };
            let collation = self.adapted(own, known);
            column.charset = collation.split('_').next().map(str::to_owned);
            column.collation = Some(collation);
        }
        self.leave_out_of(&mut table);
        table
    }

    /// Tells whether an index is made only when the rows are there. Unique ones are not: a row that
    /// they refuse should be refused at once. Neither are expressions, whose spelling is read back
    /// right after the table was made, nor invisible ones, which OceanBase adds visible.
    pub fn defers(&self, index: &Index) -> bool {
        self.indexes_after_load && !index.unique && !index.invisible && !index.has_expression()
    }

    fn adapted(&self, own: String, known: &BTreeSet<String>) -> String {
        self.collation(&own, known)
            .map(str::to_owned)
            .unwrap_or(own)
    }

    fn leave_out_of(&self, table: &mut Table) {
        let features = &mut table.features;
        if self.leaves_out(LeftOut::ForeignKeys) {
            features.foreign_keys.clear();
        }
        if self.leaves_out(LeftOut::Checks) {
            features.checks.clear();
        }
        if self.leaves_out(LeftOut::Partitions) {
            features.partitioning = None;
        }
        if self.leaves_out(LeftOut::ExpressionIndexes) {
            table.indexes.retain(|index| !index.has_expression());
        }
        if self.leaves_out(LeftOut::ExpressionDefaults) {
            for column in &mut table.columns {
                if matches!(column.default, ColumnDefault::Expression(_)) {
                    column.default = ColumnDefault::None;
                }
            }
        }
    }
}

impl Index {
    /// Tells whether a part of the index is an expression.
    pub fn has_expression(&self) -> bool {
        self.parts.iter().any(|part| part.expression.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    fn known() -> BTreeSet<String> {
        ["utf8mb4_bin", "utf8mb4_general_ci", "binary"]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn only_a_collation_that_the_target_lacks_is_replaced() {
        let mut choices = Choices::default();
        let all = [
            ("utf8mb4_0900_ai_ci", "utf8mb4_general_ci"),
            ("utf8mb4_bin", "binary"),
        ];
        choices.collations = all.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let known = known();
        let chosen = |name| choices.collation(name, &known);
        assert_eq!(chosen("utf8mb4_0900_ai_ci"), Some("utf8mb4_general_ci"));
        assert_eq!(chosen("utf8mb4_bin"), Some("utf8mb4_bin"));
        assert_eq!(chosen("ascii_bin"), Some("utf8mb4_bin"));
        assert_eq!(chosen("utf8mb4_unicode_ci"), None);
    }

    #[test]
    fn what_is_left_out_is_not_made() {
        let mut text = column("b", 2, "varchar(9)", true);
        text.collation = Some("latin1_bin".to_owned());
        text.charset = Some("latin1".to_owned());
        let mut expression = part("e", false, 1, "b");
        expression.expression = Some("lower(`b`)".to_owned());
        let parts = vec![part("PRIMARY", true, 1, "a"), expression];
        let columns = vec![column("a", 1, "int(11)", false), text];
        let table = table(TableName::new("s", "t"), columns, parts);
        let mut choices = Choices::default();
        choices.leave_out.insert(LeftOut::ExpressionIndexes);
        let adapted = choices.adapt(&table, &known());
        assert_eq!(adapted.indexes.len(), 1);
        assert_eq!(adapted.columns[1].charset.as_deref(), Some("utf8mb4"));
        assert_eq!(adapted.columns[1].collation.as_deref(), Some("utf8mb4_bin"));
    }
}
