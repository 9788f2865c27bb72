//! The DDL that makes a source table on the target.

use super::{Column, ColumnDefault, Index, Table, quote};
use crate::row::Kind;
use std::borrow::Cow;

/// Returns the statement that makes a database if it is missing.
pub fn create_database(schema: &str) -> String {
    format!(
        "CREATE DATABASE IF NOT EXISTS {} DEFAULT CHARSET utf8mb4",
        quote(schema)
    )
}

/// Returns the statement that makes `table` on the target, with its keys, defaults and comments.
pub fn create_table(table: &Table) -> String {
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| column.ordinal);
    let mut lines: Vec<String> = columns.into_iter().map(column_line).collect();
    lines.extend(table.indexes.iter().map(index_line));
    let mut sql = format!(
        "CREATE TABLE {} (\n  {}\n)",
        table.target.sql(),
        lines.join(",\n  ")
    );
    if let Some(collation) = &table.collation {
        let charset = collation.split('_').next().unwrap_or(collation);
        sql.push_str(&format!(" DEFAULT CHARSET {charset} COLLATE {collation}"));
    }
    if !table.comment.is_empty() {
        sql.push_str(&format!(" COMMENT {}", text(&table.comment)));
    }
    sql
}

fn column_line(column: &Column) -> String {
    let mut line = format!("{} {}", quote(&column.name), type_of(column));
    if let (Some(charset), Some(collation)) = (&column.charset, &column.collation) {
        line.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
    }
    line.push_str(if column.nullable {
        " NULL"
    } else {
        " NOT NULL"
    });
    match &column.default {
        ColumnDefault::None => {}
        ColumnDefault::Constant(value) => line.push_str(&format!(" DEFAULT {}", text(value))),
        ColumnDefault::Verbatim(value) | ColumnDefault::Expression(value) => {
            line.push_str(&format!(" DEFAULT {value}"));
        }
    }
    if let Some(on_update) = &column.on_update {
        line.push_str(&format!(" ON UPDATE {on_update}"));
    }
    if column.auto_increment {
        line.push_str(" AUTO_INCREMENT");
    }
    if !column.comment.is_empty() {
        line.push_str(&format!(" COMMENT {}", text(&column.comment)));
    }
    line
}

/// Returns the type that the target's column has.
///
/// A scale on FLOAT and DOUBLE is left out: OceanBase rounds to it in its own way, so that 1.235 in a
/// `double(9,3)` would lose its last bit. Labels are quoted anew: TiDB prints a backslash in them
/// bare.
fn type_of(column: &Column) -> Cow<'_, str> {
    let whole = column.column_type.as_str();
    match (&column.kind, whole.find('('), whole.find(')')) {
        (Kind::Enum(labels) | Kind::Set(labels), Some(open), _) => {
            let labels: Vec<String> = labels.iter().map(|label| text(label)).collect();
            Cow::Owned(format!("{}({})", &whole[..open], labels.join(",")))
        }
        (Kind::Float | Kind::Double, Some(open), Some(close)) if open < close => {
            Cow::Owned(format!("{}{}", &whole[..open], &whole[close + 1..]))
        }
        _ => Cow::Borrowed(whole),
    }
}

fn index_line(index: &Index) -> String {
    let parts: Vec<String> = index
        .parts
        .iter()
        .map(|part| {
            let column = quote(part.column.as_deref().unwrap_or_default());
            match part.prefix {
                Some(length) => format!("{column}({length})"),
                None => column,
            }
        })
        .collect();
    let parts = parts.join(", ");
    match (index.name.as_str(), index.unique) {
        ("PRIMARY", _) => format!("PRIMARY KEY ({parts})"),
        (name, true) => format!("UNIQUE KEY {} ({parts})", quote(name)),
        (name, false) => format!("KEY {} ({parts})", quote(name)),
    }
}

fn text(value: &str) -> String {
    crate::apply::text_literal(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{column_line, type_of};
    use crate::schema::testing::{column, part, table};
    use crate::schema::{TableName, create_table};

    #[test]
    fn a_table_keeps_order_defaults_and_comments() {
        let mut price = column("n", 1, "decimal(9,2)", false);
        price.default = Some("1.50".to_owned());
        price.comment = "it's".to_owned();
        let mut id = column("id", 2, "bigint(20)", false);
        id.extra = "auto_increment".to_owned();
        let mut at = column("at", 3, "timestamp(3)", false);
        at.extra = "DEFAULT_GENERATED on update CURRENT_TIMESTAMP(3)".to_owned();
        at.default = Some("CURRENT_TIMESTAMP(3)".to_owned());
        let key = vec![part("PRIMARY", true, 1, "id")];
        let table = table(TableName::new("shop", "o`rder"), vec![price, id, at], key);
        assert_eq!(
            create_table(&table),
            "CREATE TABLE `shop`.`o``rder` (\n  \
             `n` decimal(9,2) NOT NULL DEFAULT '1.50' COMMENT 'it\\'s',\n  \
             `id` bigint(20) NOT NULL AUTO_INCREMENT,\n  \
             `at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE \
             CURRENT_TIMESTAMP(3),\n  PRIMARY KEY (`id`)\n) \
             DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin"
        );
    }

    #[test]
    fn a_scale_that_would_round_is_left_out() {
        let columns = vec![
            column("id", 1, "decimal(9,2)", false),
            column("f", 2, "double(9,3) unsigned", true),
        ];
        let table = table(TableName::new("s", "t"), columns, Vec::new());
        assert_eq!(type_of(&table.columns[0]), "decimal(9,2)");
        assert_eq!(column_line(&table.columns[1]), "`f` double unsigned NULL");
    }

    #[test]
    fn labels_are_quoted_anew() {
        let columns = vec![column("e", 1, r"enum('it''s','a\b')", true)];
        let table = table(TableName::new("s", "t"), columns, Vec::new());
        assert_eq!(type_of(&table.columns[0]), r"enum('it\'s','a\\b')");
    }
}
