//! The queries that read rows, in a form in which both servers' texts are lossless.

use crate::chunk::Range;
use crate::fence::Scn;
use crate::row::Kind;
use crate::schema::{Table, quote};

/// Returns the expressions that read the columns in layout order.
///
/// FLOAT is widened, because OceanBase prints it with six digits; `* 1e0` keeps the sign of zero,
/// which `+ 0e0` would not. So is a DOUBLE with a scale, which OceanBase prints rounded to it. BIT is
/// read as a number.
pub fn column_expressions(table: &Table) -> String {
    let expressions: Vec<String> = table
        .columns
        .iter()
        .map(|column| match column.kind {
            Kind::Float => format!("{} * 1e0", quote(&column.name)),
            Kind::Double if column.column_type.contains('(') => {
                format!("{} * 1e0", quote(&column.name))
            }
            Kind::Bit => format!("{} + 0", quote(&column.name)),
            // A zero-filled number would have another text than in the feed.
            Kind::Integer | Kind::Decimal if column.column_type.contains("zerofill") => {
                format!("{} + 0", quote(&column.name))
            }
            _ => quote(&column.name),
        })
        .collect();
    expressions.join(", ")
}

/// Makes TiDB's storage stop at the limit. Without it, TiDB has pages read that double in size, up to
/// twice the rows that are wanted, and cuts them off itself. To other servers it is a comment.
const LIMIT_HINT: &str = "/*+ LIMIT_TO_COP() SET_VAR(tidb_enable_paging=OFF) */ ";

/// Returns the query that reads rows on the source in the order of the key, as the session's
/// snapshot shows them: those that fulfil the condition and the table's filter.
pub fn source_scan(table: &Table, condition: Option<&str>, limit: Option<usize>) -> String {
    let filter = table.filter.as_deref().map(|filter| format!("({filter})"));
    let conditions: Vec<&str> = condition.into_iter().chain(filter.as_deref()).collect();
    let mut sql = format!(
        "SELECT {}{} FROM {}",
        limit.map_or("", |_| LIMIT_HINT),
        column_expressions(table),
        table.name.sql()
    );
    push_condition_and_order(table, &conditions.join(" AND "), &mut sql);
    if let Some(limit) = limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

/// Returns the query that reads rows on the target in the order of the key, as of a snapshot or as
/// they are now.
pub fn target_scan(table: &Table, condition: Option<&str>, snapshot: Option<Scn>) -> String {
    let mut sql = format!(
        "SELECT {} FROM {}",
        column_expressions(table),
        table.target.sql()
    );
    if let Some(snapshot) = snapshot {
        sql.push_str(&format!(" AS OF SNAPSHOT {snapshot}"));
    }
    push_condition_and_order(table, condition.unwrap_or_default(), &mut sql);
    sql
}

fn push_condition_and_order(table: &Table, condition: &str, sql: &mut String) {
    if !condition.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(condition);
    }
    let key: Vec<String> = table
        .key()
        .iter()
        .map(|column| quote(&column.name))
        .collect();
    sql.push_str(&format!(" ORDER BY {}", key.join(", ")));
}

impl Range {
    /// Returns the query that reads up to `limit` rows of this range on the source.
    pub fn source_sql(&self, table: &Table, limit: Option<usize>) -> String {
        source_scan(table, self.source_condition(table).as_deref(), limit)
    }

    /// Returns the query that reads this range on the target, now or as of a snapshot.
    pub fn target_sql(&self, table: &Table, snapshot: Option<Scn>) -> String {
        target_scan(table, self.target_condition(table).as_deref(), snapshot)
    }
}
