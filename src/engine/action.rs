//! The kinds of DDL that the machine tells apart: TiDB's numbers for them (`model.ActionType`).

use crate::schema::{TableName, quote};

pub const CREATE_SCHEMA: u32 = 1;
pub const DROP_SCHEMA: u32 = 2;
pub const CREATE_TABLE: u32 = 3;
pub const ALTER_SCHEMA_CHARSET: u32 = 26;
pub const RENAME_TABLE: u32 = 14;
pub const RECOVER_TABLE: u32 = 25;
pub const EXCHANGE_PARTITION: u32 = 42;
pub const RENAME_TABLES: u32 = 47;
pub const FLASHBACK_CLUSTER: u32 = 62;
pub const RECOVER_SCHEMA: u32 = 63;

/// DDL that concerns tables beside the one that its message names.
pub const OF_SEVERAL_TABLES: [u32; 6] = [
    RENAME_TABLE,
    RECOVER_TABLE,
    EXCHANGE_PARTITION,
    RENAME_TABLES,
    FLASHBACK_CLUSTER,
    RECOVER_SCHEMA,
];

/// Tells whether a statement, in which TiCDC quotes every name, may speak of this table.
pub fn names(query: &str, name: &TableName) -> bool {
    query
        .to_lowercase()
        .contains(&quote(&name.table).to_lowercase())
}
