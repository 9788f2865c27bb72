//! Names of tables, and how identifiers are quoted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a table with its schema, in the case in which the source spells it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct TableName {
    /// The schema, which MySQL also calls the database.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// Names a table.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        TableName {
            schema: schema.into(),
            table: table.into(),
        }
    }

    /// Tells whether both are one name to the servers, which do not regard case.
    pub fn is_same(&self, other: &TableName) -> bool {
        self.schema.eq_ignore_ascii_case(&other.schema)
            && self.table.eq_ignore_ascii_case(&other.table)
    }

    /// Returns the name as SQL writes it, quoted.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Quotes an identifier for SQL.
pub fn quote(identifier: &str) -> String {
    format!("`{}`", identifier.replace('`', "``"))
}
