//! The queries that read rows, in a form in which both servers' texts are lossless.

use super::Server;
use crate::apply::widened_elements;
use crate::chunk::{ROW_ID, Range};
use crate::fence::Scn;
use crate::row::Kind;
use crate::schema::{Column, Table, quote};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Returns the expressions that read columns of a server, joined.
///
/// FLOAT is widened, because OceanBase prints it with six digits; `* 1e0` keeps the sign of zero,
/// which `+ 0e0` would not. So is a DOUBLE with a scale, which OceanBase prints rounded to it, and each
/// element of a VECTOR. BIT is read as a number.
fn expressions(columns: &[Column], server: Server) -> String {
    let expressions: Vec<String> = columns
        .iter()
        .map(|column| match column.kind {
            Kind::Enum(_) | Kind::Set(_) if column.kind.is_numbered() => {
                format!("CAST({} AS UNSIGNED)", quote(&column.name))
            }
            Kind::Vector if server == Server::OceanBase => widened_elements(&quote(&column.name)),
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

/// A query of rows.
#[derive(Clone, Debug)]
pub struct Select {
    /// The text.
    pub sql: String,
    /// Whether a first column is selected that is no part of the rows.
    pub guarded: bool,
    /// The same for queries that should take about as long by row and byte; 0 for one that is
    /// comparable to none.
    pub work: u64,
}

/// What a statement does to a table.
#[derive(Clone, Copy, Debug, Hash)]
pub enum WorkKind {
    /// It reads the rows under some keys.
    Lookup,
    /// It reads a range in the order of the key.
    Range,
    /// It reads the whole table.
    Whole,
    /// It inserts rows.
    Insert,
    /// It deletes rows.
    Delete,
}

impl WorkKind {
    /// Tells what a statement does that writes rows.
    pub fn of_write(sql: &str) -> WorkKind {
        match sql.starts_with("DELETE") {
            true => WorkKind::Delete,
            false => WorkKind::Insert,
        }
    }
}

/// Returns the number that is the same for statements of one kind on one table.
pub fn work_of(table: &Table, kind: WorkKind) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&table.name, kind).hash(&mut hasher);
    hasher.finish()
}

impl<T: Into<String>> From<T> for Select {
    fn from(sql: T) -> Self {
        Select {
            sql: sql.into(),
            guarded: false,
            work: 0,
        }
    }
}

impl Select {
    fn of(mut self, table: &Table, kind: WorkKind) -> Select {
        self.work = work_of(table, kind);
        self
    }
}

/// Returns the query that reads rows on the source in the order of the key, as the session's
/// snapshot shows them: those that fulfil the condition and the table's filter.
pub fn source_scan(table: &Table, condition: Option<&str>) -> Select {
    let order = key_order(table);
    on_source(table, guard_of(table), condition, None, &order).of(table, WorkKind::Lookup)
}

/// Returns the query that reads all rows on the source, in any order.
pub fn source_whole(table: &Table) -> Select {
    on_source(table, guard_of(table), None, None, "").of(table, WorkKind::Whole)
}

/// Returns the query that reads rows on the target in the order of the key, as of a snapshot or as
/// they are now.
pub fn target_scan(table: &Table, condition: Option<&str>, snapshot: Option<Scn>) -> Select {
    on_target(table, condition, snapshot, &key_order(table)).of(table, WorkKind::Lookup)
}

/// Returns the query that reads all rows on the target, in any order.
pub fn target_whole(table: &Table, snapshot: Option<Scn>) -> Select {
    on_target(table, None, snapshot, "").of(table, WorkKind::Whole)
}

/// Returns the query that reads the keys on the target of the rows that fulfil a condition, as they
/// are now.
pub fn target_keys(table: &Table, condition: &str) -> String {
    let mut sql = format!(
        "SELECT {} FROM {}",
        expressions(table.key(), Server::OceanBase),
        table.target.sql()
    );
    push_condition_and_order(condition, "", &mut sql);
    sql
}

/// Returns the query that reads TiDB's hidden row numbers and the keys on the source, whatever the
/// table's filter.
pub fn source_row_ids(table: &Table, condition: &str) -> Select {
    Select::from(format!(
        "SELECT {ROW_ID}, {} FROM {} WHERE {condition}",
        expressions(table.key(), Server::TiDb),
        table.name.sql()
    ))
}

fn key_order(table: &Table) -> String {
    let key = table.key().iter().map(|column| quote(&column.name));
    key.collect::<Vec<_>>().join(", ")
}

/// Returns a small column to stand before the rows, where the first of theirs may be large.
fn guard_of(table: &Table) -> Option<&'static str> {
    table.has_large_first_column().then_some("0")
}

fn on_source(
    table: &Table,
    guard: Option<&str>,
    condition: Option<&str>,
    limit: Option<usize>,
    order: &str,
) -> Select {
    let filter = table.filter.as_deref().map(|filter| format!("({filter})"));
    let conditions: Vec<&str> = condition.into_iter().chain(filter.as_deref()).collect();
    let mut sql = format!(
        "SELECT {}{}{} FROM {}",
        limit.map_or("", |_| LIMIT_HINT),
        guard.map_or(String::new(), |guard| format!("{guard}, ")),
        expressions(&table.columns, Server::TiDb),
        table.name.sql()
    );
    push_condition_and_order(&conditions.join(" AND "), order, &mut sql);
    if let Some(limit) = limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    Select {
        sql,
        guarded: guard.is_some(),
        work: 0,
    }
}

fn on_target(table: &Table, condition: Option<&str>, snapshot: Option<Scn>, order: &str) -> Select {
    let guard = guard_of(table);
    let mut sql = format!(
        "SELECT {}{} FROM {}",
        guard.map_or(String::new(), |guard| format!("{guard}, ")),
        expressions(&table.columns, Server::OceanBase),
        table.target.sql()
    );
    if let Some(snapshot) = snapshot {
        sql.push_str(&format!(" AS OF SNAPSHOT {snapshot}"));
    }
    push_condition_and_order(condition.unwrap_or_default(), order, &mut sql);
    Select {
        sql,
        guarded: guard.is_some(),
        work: 0,
    }
}

fn push_condition_and_order(condition: &str, order: &str, sql: &mut String) {
    if !condition.is_empty() {
        sql.push_str(&format!(" WHERE {condition}"));
    }
    if !order.is_empty() {
        sql.push_str(&format!(" ORDER BY {order}"));
    }
}

impl Range {
    /// Returns the query that reads up to `limit` rows of this range on the source. The column before
    /// the rows of a table without a key is the number by which it is walked.
    pub fn source_sql(&self, table: &Table, limit: Option<usize>) -> Select {
        let condition = self.source_condition(table);
        let guard = match table.key_len {
            0 => Some(ROW_ID),
            _ => guard_of(table),
        };
        let order = Range::source_order(table);
        on_source(table, guard, condition.as_deref(), limit, &order).of(table, WorkKind::Range)
    }

    /// Returns the query that reads the key at a place, counted from 0, of this range on the target.
    pub fn target_key_sql(&self, table: &Table, snapshot: Option<Scn>, place: usize) -> String {
        let mut sql = format!(
            "SELECT {} FROM {}",
            expressions(table.key(), Server::OceanBase),
            table.target.sql()
        );
        if let Some(snapshot) = snapshot {
            sql.push_str(&format!(" AS OF SNAPSHOT {snapshot}"));
        }
        let condition = self.target_condition(table).unwrap_or_default();
        push_condition_and_order(&condition, &Range::target_order(table), &mut sql);
        sql.push_str(&format!(" LIMIT {place}, 1"));
        sql
    }

    /// Returns the query that reads this range on the target, now or as of a snapshot.
    pub fn target_sql(&self, table: &Table, snapshot: Option<Scn>) -> Select {
        let condition = self.target_condition(table);
        target_scan(table, condition.as_deref(), snapshot).of(table, WorkKind::Range)
    }
}
