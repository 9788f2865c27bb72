//! Patterns of table names.

use crate::error::{Error, ErrorKind, Result};
use crate::schema::TableName;

/// A pattern of the form `schema.table`, in which `*` stands for any characters. Names are matched
/// without regard to case, as TiDB does.
#[derive(Clone, Debug)]
pub struct Pattern {
    schema: String,
    table: String,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it has no dot.
    pub fn parse(text: &str) -> Result<Self> {
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

    /// Tells whether a name fits.
    pub fn matches(&self, name: &TableName) -> bool {
        wildcard(&self.schema, &name.schema.to_lowercase())
            && wildcard(&self.table, &name.table.to_lowercase())
    }
}

/// Matches a text with a pattern in which `*` stands for any characters.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
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
