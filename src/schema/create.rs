//! The DDL that makes a source table on the target.

use super::{
    Check, Column, ColumnDefault, ForeignKey, Index, IndexPart, Partitioning, Table, TableName,
    for_target, quote,
};
use crate::row::Kind;
use std::borrow::Cow;

/// Returns the statement that makes a database if it is missing.
pub fn create_database(schema: &str) -> String {
    format!(
        "CREATE DATABASE IF NOT EXISTS {} DEFAULT CHARSET utf8mb4",
        quote(schema)
    )
}

/// Returns the statement that makes `table` on the target: columns, keys, CHECK constraints and
/// partitions. Foreign keys follow by themselves, see [`add_foreign_key`].
///
/// `next` is the first value that AUTO_INCREMENT may give.
pub fn create_table(table: &Table, next: Option<u64>) -> String {
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| column.ordinal);
    let mut lines: Vec<String> = columns.into_iter().map(column_line).collect();
    lines.extend(table.indexes.iter().map(index_line));
    lines.extend(table.features.checks.iter().map(check_line));
    let mut sql = format!(
        "CREATE TABLE {} (\n  {}\n)",
        table.target.sql(),
        lines.join(",\n  ")
    );
    if let Some(next) = next {
        sql.push_str(&format!(" AUTO_INCREMENT {next}"));
    }
    if let Some(collation) = &table.collation {
        let charset = collation.split('_').next().unwrap_or(collation);
        sql.push_str(&format!(" DEFAULT CHARSET {charset} COLLATE {collation}"));
    }
    if !table.comment.is_empty() {
        sql.push_str(&format!(" COMMENT {}", text(&table.comment)));
    }
    if let Some(partitioning) = &table.features.partitioning {
        sql.push('\n');
        sql.push_str(&partition_clause(partitioning));
    }
    sql
}

/// Returns the statement that adds a foreign key.
pub fn add_foreign_key(target: &TableName, key: &ForeignKey) -> String {
    format!(
        "ALTER TABLE {} {}",
        target.sql(),
        add_foreign_key_clause(key)
    )
}

/// Returns the statement that adds indexes, all at once so that the rows are read once.
pub fn add_indexes(target: &TableName, indexes: &[&Index]) -> String {
    let clauses: Vec<String> = indexes
        .iter()
        .map(|index| format!("ADD {}", index_line(index)))
        .collect();
    format!("ALTER TABLE {} {}", target.sql(), clauses.join(", "))
}

/// Returns the clause of ALTER TABLE that adds a foreign key.
pub fn add_foreign_key_clause(key: &ForeignKey) -> String {
    let list = |columns: &[String]| {
        let quoted: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        quoted.join(", ")
    };
    let mut sql = format!(
        "ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})",
        quote(&key.name),
        list(&key.columns),
        key.parent.sql(),
        list(&key.parent_columns)
    );
    for (event, rule) in [("DELETE", &key.on_delete), ("UPDATE", &key.on_update)] {
        if let Some(rule) = ForeignKey::rule(rule) {
            sql.push_str(&format!(" ON {event} {rule}"));
        }
    }
    sql
}

/// Returns the definition of a column as CREATE TABLE and ALTER TABLE take it.
pub fn column_line(column: &Column) -> String {
    let mut line = format!("{} {}", quote(&column.name), type_of(column));
    if let (Some(charset), Some(collation)) = (&column.charset, &column.collation) {
        line.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
    }
    if let Some(generation) = &column.generation {
        line.push_str(&format!(
            " GENERATED ALWAYS AS ({}) {}",
            for_target(&generation.expression),
            if generation.stored {
                "STORED"
            } else {
                "VIRTUAL"
            }
        ));
    }
    line.push_str(if column.nullable {
        " NULL"
    } else {
        " NOT NULL"
    });
    match &column.default {
        ColumnDefault::None => {}
        ColumnDefault::Constant(value) => line.push_str(&format!(" DEFAULT {}", text(value))),
        ColumnDefault::Verbatim(value) => line.push_str(&format!(" DEFAULT {value}")),
        ColumnDefault::Expression(value) => {
            line.push_str(&format!(" DEFAULT ({})", for_target(value)));
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
/// `double(9,3)` would lose its last bit. Labels are written anew: the servers print a backslash in
/// them as it is, and would read it as an escape.
pub fn type_of(column: &Column) -> Cow<'_, str> {
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

/// Returns the definition of an index as CREATE TABLE and ALTER TABLE ... ADD take it.
pub fn index_line(index: &Index) -> String {
    let parts: Vec<String> = index.parts.iter().map(part).collect();
    let parts = parts.join(", ");
    let mut line = match (index.name.as_str(), index.unique) {
        ("PRIMARY", _) => format!("PRIMARY KEY ({parts})"),
        (name, true) => format!("UNIQUE KEY {} ({parts})", quote(name)),
        (name, false) => format!("KEY {} ({parts})", quote(name)),
    };
    if index.global {
        line.push_str(" GLOBAL");
    }
    if !index.comment.is_empty() {
        line.push_str(&format!(" COMMENT {}", text(&index.comment)));
    }
    if index.invisible {
        line.push_str(" INVISIBLE");
    }
    line
}

fn part(part: &IndexPart) -> String {
    if let Some(expression) = &part.expression {
        return format!("({})", for_target(expression));
    }
    let column = quote(part.column.as_deref().unwrap_or_default());
    match part.prefix {
        Some(length) => format!("{column}({length})"),
        None => column,
    }
}

/// Returns the definition of a CHECK constraint as CREATE TABLE and ALTER TABLE ... ADD take it.
pub fn check_line(check: &Check) -> String {
    let enforced = if check.enforced { "" } else { " NOT ENFORCED" };
    format!(
        "CONSTRAINT {} CHECK ({}){enforced}",
        quote(&check.name),
        for_target(&check.condition)
    )
}

/// Returns the clause that cuts a table into partitions. OceanBase knows no comments on them.
pub fn partition_clause(partitioning: &Partitioning) -> String {
    let (word, takes) = match partitioning.method.as_str() {
        "RANGE" | "RANGE COLUMNS" => (" VALUES LESS THAN ", true),
        "LIST" | "LIST COLUMNS" => (" VALUES IN ", true),
        _ => ("", false),
    };
    let partitions: Vec<String> = partitioning
        .partitions
        .iter()
        .map(|partition| {
            let values = match takes {
                true => format!("({})", for_target(&partition.values)),
                false => String::new(),
            };
            format!("  PARTITION {}{word}{values}", quote(&partition.name))
        })
        .collect();
    format!(
        "PARTITION BY {} ({}) (\n{}\n)",
        partitioning.method,
        for_target(&partitioning.expression),
        partitions.join(",\n")
    )
}

fn text(value: &str) -> String {
    crate::apply::text_literal(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{column_line, type_of};
    use crate::schema::testing::{column, part, table};
    use crate::schema::{
        Check, ForeignKey, Partition, Partitioning, TableName, add_foreign_key, create_table,
    };

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
            create_table(&table, None),
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

    #[test]
    fn what_stands_beside_columns_is_written_as_oceanbase_reads_it() {
        let mut id = column("id", 1, "bigint(20)", false);
        id.extra = "auto_increment".to_owned();
        let mut computed = column("g", 2, "int(11)", true);
        computed.extra = "VIRTUAL GENERATED".to_owned();
        computed.generation = "char_length(_utf8'a\\\\b')".to_owned();
        let mut default = column("u", 3, "varbinary(36)", true);
        default.extra = "DEFAULT_GENERATED".to_owned();
        default.default = Some("uuid()".to_owned());
        let label = column("e", 4, "enum('it''s','b\\c')", true);
        let mut expression = part("x", true, 1, "ignored");
        (expression.column, expression.expression) = (None, Some("lower(`e`)".to_owned()));
        (expression.global, expression.visible) = (true, false);
        expression.comment = "it's".to_owned();
        let parts = vec![part("PRIMARY", true, 1, "id"), expression];
        let columns = vec![id, computed, default, label];
        let mut table = table(TableName::new("s", "t"), columns, parts);
        table.features.checks.push(Check {
            name: "c`k".to_owned(),
            condition: "(`id` != 0)".to_owned(),
            enforced: false,
        });
        table.features.partitioning = Some(Partitioning {
            method: "LIST".to_owned(),
            expression: "`id`".to_owned(),
            partitions: vec![Partition {
                name: "p`0".to_owned(),
                values: "1,DEFAULT".to_owned(),
                comment: "not known to OceanBase".to_owned(),
            }],
        });
        assert_eq!(
            create_table(&table, Some(7)),
            "CREATE TABLE `s`.`t` (\n  `id` bigint(20) NOT NULL AUTO_INCREMENT,\n  \
             `g` int(11) GENERATED ALWAYS AS (char_length(_utf8mb4'a\\\\b')) VIRTUAL NULL,\n  \
             `u` varbinary(36) NULL DEFAULT (uuid()),\n  \
             `e` enum('it\\'s','b\\\\c') NULL,\n  PRIMARY KEY (`id`),\n  \
             UNIQUE KEY `x` ((lower(`e`))) GLOBAL COMMENT 'it\\'s' INVISIBLE,\n  \
             CONSTRAINT `c``k` CHECK ((`id` != 0)) NOT ENFORCED\n) AUTO_INCREMENT 7 \
             DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin\n\
             PARTITION BY LIST (`id`) (\n  PARTITION `p``0` VALUES IN (1,DEFAULT)\n)"
        );
    }

    #[test]
    fn a_foreign_key_names_only_rules_that_do_something() {
        let key = ForeignKey {
            name: "f".to_owned(),
            columns: vec!["a".to_owned(), "b".to_owned()],
            parent: TableName::new("s", "p"),
            parent_columns: vec!["x".to_owned(), "y".to_owned()],
            on_update: "NO ACTION".to_owned(),
            on_delete: "CASCADE".to_owned(),
        };
        assert_eq!(
            add_foreign_key(&TableName::new("s", "t"), &key),
            "ALTER TABLE `s`.`t` ADD CONSTRAINT `f` FOREIGN KEY (`a`, `b`) \
             REFERENCES `s`.`p` (`x`, `y`) ON DELETE CASCADE"
        );
    }
}
