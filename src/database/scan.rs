//! The queries that read rows, in a form in which both servers' texts are lossless.

use crate::chunk::Range;
use crate::fence::Scn;
use crate::row::Kind;
use crate::schema::{Table, quote};

/// What to read of a table.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest<'a> {
    /// The condition on the rows; none reads all.
    pub condition: Option<&'a str>,
    /// The most rows to read.
    pub limit: Option<usize>,
    /// The snapshot of an OceanBase read. TiDB's is set on the session.
    pub snapshot: Option<Scn>,
}

impl<'a> ScanRequest<'a> {
    /// Reads the rows that fulfil a condition, as they are now or as the session says.
    pub fn of(condition: Option<&'a str>) -> Self {
        ScanRequest {
            condition,
            limit: None,
            snapshot: None,
        }
    }
}

/// Returns the expressions that read the columns in layout order.
///
/// FLOAT is widened, because OceanBase prints it with six digits; `* 1e0` keeps the sign of zero,
/// which `+ 0e0` would not. BIT is read as a number.
pub fn column_expressions(table: &Table) -> String {
    let expressions: Vec<String> = table
        .columns
        .iter()
        .map(|column| match column.kind {
            Kind::Float => format!("{} * 1e0", quote(&column.name)),
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

/// Returns the query that reads rows of a table in the order of its key.
pub fn scan_sql(table: &Table, request: ScanRequest<'_>) -> String {
    let mut sql = format!(
        "SELECT {}{} FROM {}",
        request.limit.map_or("", |_| LIMIT_HINT),
        column_expressions(table),
        table.name.sql()
    );
    if let Some(snapshot) = request.snapshot {
        sql.push_str(&format!(" AS OF SNAPSHOT {snapshot}"));
    }
    if let Some(condition) = request.condition {
        sql.push_str(" WHERE ");
        sql.push_str(condition);
    }
    let key: Vec<String> = table
        .key()
        .iter()
        .map(|column| quote(&column.name))
        .collect();
    sql.push_str(&format!(" ORDER BY {}", key.join(", ")));
    if let Some(limit) = request.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

impl Range {
    /// Returns the query that reads up to `limit` rows of this range on the source.
    pub fn source_sql(&self, table: &Table, limit: Option<usize>) -> String {
        let condition = self.source_condition(table);
        scan_sql(
            table,
            ScanRequest {
                condition: condition.as_deref(),
                limit,
                snapshot: None,
            },
        )
    }

    /// Returns the query that reads this range on the target, now or as of a snapshot.
    pub fn target_sql(&self, table: &Table, snapshot: Option<Scn>) -> String {
        let condition = self.target_condition(table);
        scan_sql(
            table,
            ScanRequest {
                condition: condition.as_deref(),
                limit: None,
                snapshot,
            },
        )
    }
}
