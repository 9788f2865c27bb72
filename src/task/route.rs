//! Tables that have another name on the target, and tables of which only some rows take part.

use super::Pattern;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::TableName;
use serde::Deserialize;

/// What stands for the source's own name in the destination of a route.
const SAME: &str = "*";

/// One entry of `[tables] routes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    from: String,
    to: String,
}

/// One entry of `[tables] filters`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterFile {
    table: String,
    rows: String,
}

/// Where the tables of a pattern go on the target.
#[derive(Clone, Debug)]
pub struct Route {
    from: Pattern,
    schema: String,
    table: String,
}

impl Route {
    /// Reads a route: `to` names the schema and the table, either of them `*` for the same name.
    ///
    /// # Errors
    /// If `from` is no pattern, or `to` no name.
    pub fn parse(file: &RouteFile) -> Result<Route> {
        let wrong = || {
            Error::new(
                ErrorKind::Usage,
                format!("[tables] routes: {:?} is no destination", file.to),
            )
            .advise("write schema.table; a * alone keeps the name, for example \"shop_new.*\"")
        };
        let (schema, table) = file.to.split_once('.').ok_or_else(wrong)?;
        let is_name = |part: &str| part == SAME || !(part.is_empty() || part.contains('*'));
        if !is_name(schema) || !is_name(table) {
            return Err(wrong());
        }
        Ok(Route {
            from: Pattern::parse(&file.from)?,
            schema: schema.to_owned(),
            table: table.to_owned(),
        })
    }

    /// Returns where a table goes, if this route is for it.
    pub fn of(&self, name: &TableName) -> Option<TableName> {
        let part = |to: &str, own: &str| if to == SAME { own } else { to }.to_owned();
        self.from.matches(name).then(|| {
            TableName::new(
                part(&self.schema, &name.schema),
                part(&self.table, &name.table),
            )
        })
    }

    /// Tells whether a table on the target may be the end of this route.
    pub fn may_lead_to(&self, name: &TableName) -> bool {
        let fits = |to: &str, own: &str| to == SAME || to.eq_ignore_ascii_case(own);
        fits(&self.schema, &name.schema) && fits(&self.table, &name.table)
    }
}

/// Which rows of the tables of a pattern take part.
#[derive(Clone, Debug)]
pub struct Filter {
    tables: Pattern,
    rows: String,
}

/// What a filter may not contain: its value must depend on the row alone, or a row would take part
/// at one fence and not at the next although nothing has changed it.
const UNSTABLE: [&str; 16] = [
    "select",
    "now",
    "sysdate",
    "curdate",
    "curtime",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "utc_date",
    "utc_time",
    "utc_timestamp",
    "unix_timestamp",
    "rand",
    "uuid",
];

impl Filter {
    /// Reads a filter: `rows` is a condition in TiDB's SQL on the columns of the row.
    ///
    /// # Errors
    /// If `table` is no pattern, or the condition depends on more than the row.
    pub fn parse(file: &FilterFile) -> Result<Filter> {
        let wrong = |what: String| {
            Error::new(
                ErrorKind::Usage,
                format!("[tables] filters: the condition on {} {what}", file.table),
            )
            .advise("write a condition on the columns of one row, for example \"region = 'EU'\"")
        };
        let text = file.rows.trim();
        if text.is_empty() {
            return Err(wrong("is empty".to_owned()));
        }
        if text.contains(';') || text.contains("--") || text.contains("/*") || text.contains('#') {
            return Err(wrong(
                "holds a comment or the end of a statement".to_owned(),
            ));
        }
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if let Some(word) = words.find(|word| UNSTABLE.contains(word)) {
            return Err(wrong(format!(
                "holds {word}: it must depend on the row alone"
            )));
        }
        if text.contains('@') {
            return Err(wrong(
                "holds a variable: it must depend on the row alone".to_owned(),
            ));
        }
        Ok(Filter {
            tables: Pattern::parse(&file.table)?,
            rows: text.to_owned(),
        })
    }

    /// Returns the condition, if this filter is for the table.
    pub fn of(&self, name: &TableName) -> Option<&str> {
        self.tables.matches(name).then_some(self.rows.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(from: &str, to: &str) -> Result<Route> {
        Route::parse(&RouteFile {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }

    fn filter(rows: &str) -> Result<Filter> {
        Filter::parse(&FilterFile {
            table: "shop.orders".to_owned(),
            rows: rows.to_owned(),
        })
    }

    #[test]
    fn a_star_keeps_the_name() {
        let name = TableName::new("Shop", "Orders");
        let whole = route("shop.*", "shop_new.*").expect("a route");
        assert_eq!(whole.of(&name), Some(TableName::new("shop_new", "Orders")));
        assert!(whole.may_lead_to(&TableName::new("SHOP_NEW", "anything")));
        let one = route("shop.orders", "*.old").expect("a route");
        assert_eq!(one.of(&name), Some(TableName::new("Shop", "old")));
        assert_eq!(one.of(&TableName::new("shop", "other")), None);
    }

    #[test]
    fn a_destination_is_a_name() {
        for to in ["shop", "shop.", ".x", "shop.a*", "*x.*"] {
            assert!(route("shop.*", to).is_err(), "{to}");
        }
    }

    #[test]
    fn a_filter_depends_on_the_row_alone() {
        assert!(filter("region = 'EU' AND nowhere < 3").is_ok());
        for rows in [
            "",
            "at > NOW()",
            "id IN (SELECT 1)",
            "id > @x",
            "1=1; DROP TABLE t",
            "rand() < 0.5",
            "true -- x",
        ] {
            assert!(filter(rows).is_err(), "{rows}");
        }
    }
}
