//! The comparison by plain SQL that shares no code with rowproof: both databases are asked for all
//! rows as text, and the texts are compared here.

use crate::lab::{Lab, texts};
use sqlx::mysql::MySqlConnection;
use std::collections::BTreeMap;

/// The rows of a table by the text of all their columns, each with how often it is there.
type Multiset = BTreeMap<Vec<Option<String>>, u32>;

/// Asserts that every table of the test's database holds the same rows on both sides now.
pub async fn assert_same_rows(lab: &Lab) {
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    let tables = texts(
        &mut source,
        &format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}' AND TABLE_TYPE = 'BASE TABLE'",
            lab.database
        ),
    )
    .await;
    assert!(!tables.is_empty(), "the source has tables");
    for table in tables.into_iter().flatten().flatten() {
        let columns = columns(&mut source, &lab.database, &table).await;
        let sql = |on_target: bool| {
            let expressions: Vec<String> = columns
                .iter()
                .map(|column| column.expression(on_target))
                .collect();
            format!(
                "SELECT {} FROM `{}`.{}",
                expressions.join(", "),
                lab.database,
                quoted(&table)
            )
        };
        let left = multiset(&columns, texts(&mut source, &sql(false)).await);
        let right = multiset(&columns, texts(&mut target, &sql(true)).await);
        let missing: Vec<_> = left
            .iter()
            .filter(|(row, count)| right.get(*row) != Some(count))
            .collect();
        let extra: Vec<_> = right
            .iter()
            .filter(|(row, count)| left.get(*row) != Some(count))
            .collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{table}: only on the source {missing:?}, only on the target {extra:?}"
        );
    }
}

/// A column with the bare name of its type.
struct Column {
    name: String,
    kind: String,
    has_empty_label: bool,
}

impl Column {
    fn expression(&self, on_target: bool) -> String {
        let name = quoted(&self.name);
        match self.kind.as_str() {
            "float" | "double" => format!("{name} * 1e0"),
            // HEX of a decimal would be that of its integer part, and not beyond 64 bits.
            "decimal" | "json" => name,
            // The number tells the error value from a label.
            "enum" => format!("CONCAT(HEX({name}), ' ', {name} + 0)"),
            // An empty member cannot be seen in the text. TiDB cannot compute with 64 members.
            "set" if self.has_empty_label => format!("CAST({name} AS UNSIGNED)"),
            "bit" => format!("{name} + 0"),
            // OceanBase prints six digits of each element, and all of a sum.
            "vector" if on_target => format!("array_map(element -> 1e0 * element, {name})"),
            "vector" => name,
            _ => format!("HEX({name})"),
        }
    }

    /// The two servers write doubles in different texts and sort the members of JSON differently.
    fn normal(&self, cell: String) -> String {
        match self.kind.as_str() {
            "float" | "double" => {
                let number: f64 = cell.parse().expect("a number from a server");
                format!("{:016x}", number.to_bits())
            }
            "vector" => {
                let elements = cell.trim_matches(['[', ']']).split(',');
                let bits = elements.map(|element| {
                    let element: f32 = element.parse().expect("a number from a server");
                    format!("{:08x}", element.to_bits())
                });
                bits.collect::<Vec<_>>().join(" ")
            }
            "json" => {
                let value: serde_json::Value =
                    serde_json::from_str(&cell).expect("JSON from a server");
                value.to_string()
            }
            _ => cell,
        }
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

async fn columns(source: &mut MySqlConnection, database: &str, table: &str) -> Vec<Column> {
    let rows = texts(
        source,
        &format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{}' ORDER BY ORDINAL_POSITION",
            table.replace('\'', "''")
        ),
    )
    .await;
    let mut columns = Vec::new();
    for row in rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || cells.next().expect("a cell");
        let (name, kind, whole) = (next(), next(), next());
        let empty = ["('',", ",'',", ",'')", "('')"];
        columns.push(Column {
            has_empty_label: empty.iter().any(|empty| whole.contains(empty)),
            name,
            kind,
        });
    }
    columns
}

fn multiset(columns: &[Column], rows: Vec<Vec<Option<String>>>) -> Multiset {
    let mut set = Multiset::new();
    for row in rows {
        let cells = columns.iter().zip(row);
        let row = cells
            .map(|(column, cell)| cell.map(|cell| column.normal(cell)))
            .collect();
        *set.entry(row).or_default() += 1;
    }
    set
}
