//! Policies of the task file: how columns are compared less strictly, by name or by type.

use super::Pattern;
use super::pattern::wildcard;
use crate::error::{Error, ErrorKind, Result};
use crate::row::Policy;
use crate::schema::{Column, Table};
use serde::Deserialize;

/// One entry of `[[policies]]`: the columns it is for, and exactly one relaxation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyFile {
    columns: Vec<String>,
    types: Vec<String>,
    ignore: bool,
    ignore_trailing_spaces: bool,
    json_numbers_by_value: bool,
    float_ulps: Option<u32>,
    float_relative: Option<f64>,
}

/// A policy and the columns for which it is.
#[derive(Clone, Debug)]
pub struct PolicyRule {
    policy: Policy,
    select: Select,
}

#[derive(Clone, Debug)]
enum Select {
    Columns {
        text: String,
        table: Pattern,
        column: String,
    },
    Type(String),
}

impl PolicyFile {
    /// Returns a rule for each pattern of columns and each type.
    ///
    /// # Errors
    /// If there is not exactly one relaxation, or nothing for which it is.
    pub fn rules(&self) -> Result<Vec<PolicyRule>> {
        let policy = self.policy()?;
        let mut rules = Vec::new();
        for text in &self.columns {
            let (table, column) = text.rsplit_once('.').unwrap_or_default();
            let table = Pattern::parse(table).map_err(|_| {
                usage(format!("[[policies]] {text:?} is no pattern of columns"))
                    .advise("write schema.table.column, for example \"shop.*.note\"")
            })?;
            let select = Select::Columns {
                text: text.clone(),
                table,
                column: column.to_lowercase(),
            };
            rules.push(PolicyRule { policy, select });
        }
        for name in &self.types {
            let select = Select::Type(name.to_lowercase());
            rules.push(PolicyRule { policy, select });
        }
        if rules.is_empty() {
            return Err(usage("[[policies]] names neither columns nor types"));
        }
        Ok(rules)
    }

    fn policy(&self) -> Result<Policy> {
        let given = [
            self.ignore.then_some(Policy::Ignore),
            self.ignore_trailing_spaces
                .then_some(Policy::TrailingSpaces),
            self.json_numbers_by_value.then_some(Policy::JsonNumbers),
            self.float_ulps.map(Policy::FloatUlps),
            self.float_relative.map(Policy::FloatRelative),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(Policy::FloatRelative(part)), None) if !(part > 0.0 && part < 1.0) => {
                Err(usage("[[policies]] float_relative must lie between 0 and 1"))
            }
            (Some(policy), None) => Ok(policy),
            _ => Err(usage("[[policies]] each entry has exactly one relaxation").advise(
                "choose one of ignore, ignore_trailing_spaces, json_numbers_by_value, float_ulps and \
                 float_relative",
            )),
        }
    }
}

impl PolicyRule {
    /// Returns the policy if it is for this column: never for one of the key, by which rows are paired.
    fn of(&self, table: &Table, place: usize, column: &Column) -> Option<Policy> {
        let named = match &self.select {
            Select::Columns {
                table: pattern,
                column: name,
                ..
            } => pattern.matches(&table.name) && wildcard(name, &column.name.to_lowercase()),
            Select::Type(name) => column
                .column_type
                .split(['(', ' '])
                .next()
                .is_some_and(|it| it.eq_ignore_ascii_case(name)),
        };
        let pairs_rows = table.key_len == 0 || place < table.key_len;
        (named && !pairs_rows && self.policy.fits(&column.kind)).then_some(self.policy)
    }

    /// Returns the policy as a person finds it in the task file.
    fn text(&self) -> String {
        match &self.select {
            Select::Columns { text, .. } => format!("column {text}: {}", self.policy),
            Select::Type(name) => format!("type {name}: {}", self.policy),
        }
    }
}

/// Gives each column of a table the first policy that is for it, or none.
pub fn set_policies(rules: &[PolicyRule], table: &mut Table) {
    let policies: Vec<Option<Policy>> = table
        .columns
        .iter()
        .enumerate()
        .map(|(place, column)| rules.iter().find_map(|rule| rule.of(table, place, column)))
        .collect();
    for (column, policy) in table.columns.iter_mut().zip(policies) {
        column.policy = policy;
    }
}

/// Lists the policies that are for no column of these tables.
pub fn unused_policies(rules: &[PolicyRule], tables: &[Table]) -> Vec<String> {
    let used = |rule: &PolicyRule| {
        tables.iter().any(|table| {
            let mut columns = table.columns.iter().enumerate();
            columns.any(|(place, column)| rule.of(table, place, column).is_some())
        })
    };
    rules
        .iter()
        .filter(|rule| !used(rule))
        .map(PolicyRule::text)
        .collect()
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    fn rules(text: &str) -> Result<Vec<PolicyRule>> {
        let file: PolicyFile = toml::from_str(text).expect("the fields of a policy");
        file.rules()
    }

    fn prices() -> Table {
        let columns = vec![
            column("id", 1, "bigint(20)", false),
            column("price", 2, "double", true),
            column("rate", 3, "float", true),
            column("note", 4, "varchar(20)", true),
        ];
        table(
            TableName::new("shop", "prices"),
            columns,
            vec![part("PRIMARY", true, 1, "id")],
        )
    }

    #[test]
    fn a_column_gets_the_first_policy_that_is_for_it() {
        let mut all = rules("columns = ['shop.*.price']\nfloat_ulps = 4").expect("rules");
        all.extend(rules("types = ['double', 'FLOAT']\nfloat_relative = 1e-6").expect("rules"));
        all.extend(
            rules("columns = ['shop.prices.*']\nignore_trailing_spaces = true").expect("rules"),
        );
        let mut table = prices();
        set_policies(&all, &mut table);
        let policies: Vec<_> = table.columns.iter().map(|column| column.policy).collect();
        assert_eq!(
            policies,
            [
                None,
                Some(Policy::FloatUlps(4)),
                Some(Policy::FloatRelative(1e-6)),
                Some(Policy::TrailingSpaces),
            ]
        );
        assert_eq!(unused_policies(&all, &[table]), Vec::<String>::new());
    }

    #[test]
    fn a_policy_for_an_unknown_column_or_one_of_the_key_is_named() {
        for pattern in ["shop.prices.pirce", "shop.prices.id", "other.prices.price"] {
            let rules = rules(&format!("columns = ['{pattern}']\nignore = true")).expect("rules");
            assert_eq!(
                unused_policies(&rules, &[prices()]),
                [format!("column {pattern}: not compared")]
            );
        }
        let rules = rules("columns = ['shop.prices.note']\nfloat_ulps = 1").expect("rules");
        assert_eq!(
            unused_policies(&rules, &[prices()]).len(),
            1,
            "a text is no float"
        );
    }

    #[test]
    fn a_policy_without_a_place_or_with_two_meanings_is_an_error() {
        for text in [
            "ignore = true",
            "columns = ['a.b.c']",
            "columns = ['a.b.c']\nignore = true\nfloat_ulps = 1",
            "columns = ['a.b']\nignore = true",
            "columns = ['a.b.c']\nfloat_relative = nan",
            "columns = ['a.b.c']\nfloat_relative = 1.0",
        ] {
            assert!(rules(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<PolicyFile>("columns = ['a.b.c']\nignroe = true").is_err());
    }
}
