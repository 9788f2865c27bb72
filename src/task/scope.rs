//! Which tables take part.

use crate::error::{Error, ErrorKind, Result};
use crate::schema::TableName;

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

/// Patterns of tables that take part and of tables that do not.
#[derive(Clone, Debug)]
pub struct Scope {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    schema: String,
    table: String,
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
        })
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

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let (schema, table) = text.split_once('.').ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                format!("[tables] {text:?} is no pattern of tables"),
            )
            .advise("write schema.table, for example \"shop.*\"")
        })?;
        Ok(Pattern {
            schema: schema.to_lowercase(),
            table: table.to_lowercase(),
        })
    }

    fn matches(&self, name: &TableName) -> bool {
        wildcard(&self.schema, &name.schema.to_lowercase())
            && wildcard(&self.table, &name.table.to_lowercase())
    }
}

/// Matches a text with a pattern in which `*` stands for any characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
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
