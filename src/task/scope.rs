//! Which tables take part, with which rows, where they go, and how they are compared.

use super::policy::{set_policies, unused_policies};
use super::{Filter, Pattern, PolicyRule, Route};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Table, TableName};

/// Schemas of the servers themselves and of rowproof; they are never in scope.
const SYSTEM_SCHEMAS: [&str; 8] = [
    "information_schema",
    "metrics_schema",
    "performance_schema",
    "mysql",
    "sys",
    "tidb_cdc",
    "oceanbase",
    "rowproof",
];

/// Patterns of tables that take part and of tables that do not, routes, filters and policies.
#[derive(Clone, Debug)]
pub struct Scope {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    routes: Vec<Route>,
    filters: Vec<Filter>,
    policies: Vec<PolicyRule>,
    adopted: Vec<Pattern>,
}

impl Scope {
    /// Reads patterns of the form `schema.table`, in which `*` stands for any characters.
    ///
    /// # Errors
    /// If a pattern has no dot or nothing is included.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        if include.is_empty() {
            return Err(
                Error::new(ErrorKind::Usage, "[tables] include names no table")
                    .advise("name the tables, for example include = [\"shop.*\"]"),
            );
        }
        let parse = |patterns: &[String]| -> Result<Vec<Pattern>> {
            patterns.iter().map(|text| Pattern::parse(text)).collect()
        };
        Ok(Scope {
            include: parse(include)?,
            exclude: parse(exclude)?,
            routes: Vec::new(),
            filters: Vec::new(),
            policies: Vec::new(),
            adopted: Vec::new(),
        })
    }

    /// Sends tables to other names on the target, and leaves rows out.
    pub fn with(self, routes: Vec<Route>, filters: Vec<Filter>) -> Self {
        Scope {
            routes,
            filters,
            ..self
        }
    }

    /// Compares columns less strictly.
    pub fn with_policies(self, policies: Vec<PolicyRule>) -> Self {
        Scope { policies, ..self }
    }

    /// Adopts the rows that the target has already in tables of these patterns.
    ///
    /// # Errors
    /// If one is no pattern.
    pub fn with_adopted(self, patterns: &[String]) -> Result<Self> {
        let adopted: Result<_> = patterns.iter().map(|text| Pattern::parse(text)).collect();
        Ok(Scope {
            adopted: adopted?,
            ..self
        })
    }

    /// Tells whether rows that the target has already in this table are adopted.
    pub fn adopts(&self, name: &TableName) -> bool {
        self.adopted.iter().any(|pattern| pattern.matches(name))
    }

    /// Gives each column of a table the policy by which it is compared.
    pub fn set_policies(&self, table: &mut Table) {
        set_policies(&self.policies, table);
    }

    /// Lists the policies that are for no column of these tables.
    pub fn unused_policies(&self, tables: &[Table]) -> Vec<String> {
        unused_policies(&self.policies, tables)
    }

    /// Returns the name of a table on the target: by the first route that fits, or else its own.
    pub fn target_of(&self, name: &TableName) -> TableName {
        self.routes
            .iter()
            .find_map(|route| route.of(name))
            .unwrap_or_else(|| name.clone())
    }

    /// Returns the condition on the rows of a table that take part, by the first filter that fits.
    pub fn filter_of(&self, name: &TableName) -> Option<&str> {
        self.filters.iter().find_map(|filter| filter.of(name))
    }

    /// Tells whether a table on the target may be the place of one that takes part.
    pub fn may_be_target(&self, name: &TableName) -> bool {
        self.contains(name) || self.routes.iter().any(|route| route.may_lead_to(name))
    }

    /// Tells whether a table takes part. Names are matched without regard to case, as TiDB does.
    pub fn contains(&self, name: &TableName) -> bool {
        let system = SYSTEM_SCHEMAS
            .iter()
            .any(|schema| name.schema.eq_ignore_ascii_case(schema));
        !system
            && self.include.iter().any(|pattern| pattern.matches(name))
            && !self.exclude.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(include: &[&str], exclude: &[&str]) -> Scope {
        let own = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        Scope::new(&own(include), &own(exclude)).expect("valid patterns")
    }

    #[test]
    fn stars_match_any_characters() {
        let scope = scope(&["shop.*", "a*c.t*1"], &["shop.audit_*"]);
        assert!(scope.contains(&TableName::new("Shop", "orders")));
        assert!(!scope.contains(&TableName::new("shop", "audit_2026")));
        assert!(scope.contains(&TableName::new("abbc", "t_1")));
        assert!(!scope.contains(&TableName::new("abbc", "t_2")));
        assert!(!scope.contains(&TableName::new("shopping", "orders")));
    }

    #[test]
    fn system_schemas_are_never_in_scope() {
        let scope = scope(&["*.*"], &[]);
        assert!(!scope.contains(&TableName::new("mysql", "user")));
        assert!(!scope.contains(&TableName::new("rowproof", "fence")));
        assert!(scope.contains(&TableName::new("a", "b")));
    }

    #[test]
    fn a_pattern_without_a_schema_is_an_error() {
        assert!(Scope::new(&["orders".to_owned()], &[]).is_err());
        assert!(Scope::new(&[], &[]).is_err());
    }
}
