//! Views.

use super::compare::{Alike, Spellings};
use super::{SchemaDifference, SchemaVerdict, TableName, Weight, for_target, quote};

/// A view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    /// The name.
    pub name: TableName,
    /// The names of its columns, in order.
    pub columns: Vec<String>,
    /// The query, as the server prints it: with the schema of every table.
    pub query: String,
}

/// Returns the statement that makes a view on the target. Not every OceanBase knows SQL SECURITY, so
/// whose rights the view takes is left to the server.
pub fn create_view(view: &View) -> String {
    let columns: Vec<String> = view.columns.iter().map(|name| quote(name)).collect();
    format!(
        "CREATE VIEW {} ({}) AS {}",
        view.name.sql(),
        columns.join(", "),
        for_target(&view.query)
    )
}

/// Compares a view with what the target has.
pub fn judge_view(wanted: &View, found: Option<&View>, spellings: &Spellings) -> SchemaVerdict {
    let Some(found) = found else {
        return SchemaVerdict::missing(create_view(wanted));
    };
    let names = |view: &View| -> Vec<String> {
        let columns = view.columns.iter();
        columns.map(|name| name.to_lowercase()).collect()
    };
    let alike = spellings
        .judge(&wanted.query, &found.query)
        .max(Alike::when(names(wanted) == names(found)));
    let difference = alike.weight(Weight::Definition).map(|weight| {
        let name = wanted.name.sql();
        SchemaDifference {
            weight,
            what: format!("the view reads as {}", found.query),
            mend: vec![format!("DROP VIEW {name}"), create_view(wanted)],
        }
    });
    SchemaVerdict::of(difference.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SchemaWord;

    fn view(query: &str) -> View {
        View {
            name: TableName::new("s", "v"),
            columns: vec!["a".to_owned(), "b`c".to_owned()],
            query: query.to_owned(),
        }
    }

    #[test]
    fn a_view_is_made_with_its_columns() {
        assert_eq!(
            create_view(&view("SELECT 1,_UTF8MB4'x'")),
            "CREATE VIEW `s`.`v` (`a`, `b``c`) AS SELECT 1,_utf8mb4'x'"
        );
    }

    #[test]
    fn a_view_is_known_by_what_the_target_printed_when_it_was_made() {
        let wanted = view("SELECT `a` FROM `s`.`t`");
        let made = view("select `s`.`t`.`a` AS `a` from `s`.`t`");
        let mut known = Spellings::default();
        let word = |found, known: &Spellings| judge_view(&wanted, found, known).verdict;
        assert_eq!(word(Some(&made), &known), SchemaWord::Unproven);
        known.add(&wanted.query, &made.query);
        assert_eq!(word(Some(&made), &known), SchemaWord::Equal);
        let other = view("select 2");
        assert_eq!(word(Some(&other), &known), SchemaWord::Different);
        assert_eq!(word(None, &known), SchemaWord::Different);
        let mut renamed = made.clone();
        renamed.columns[0] = "other".to_owned();
        assert_eq!(word(Some(&renamed), &known), SchemaWord::Different);
    }
}
