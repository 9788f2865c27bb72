//! What `information_schema` says, row by row.

use super::{Features, TableName};

/// One row of `information_schema.TABLES`, as far as it is used.
#[derive(Clone, Debug)]
pub struct RawTable {
    /// The table's name.
    pub name: TableName,
    /// `BASE TABLE`, `VIEW`, `SEQUENCE` or what else the server has.
    pub table_type: String,
    /// The default collation; views have none.
    pub collation: Option<String>,
    /// The comment.
    pub comment: String,
    /// The server's estimate of the number of rows.
    pub rows_estimate: u64,
    /// The server's estimate of the bytes of a row; 0 when unknown.
    pub row_bytes_estimate: u64,
    /// Features of the table that rowproof cannot carry, as nouns.
    pub special: Vec<String>,
    /// What the table has beside columns and indexes.
    pub features: Features,
}

/// One row of `information_schema.COLUMNS`.
#[derive(Clone, Debug)]
pub struct RawColumn {
    /// The column's name.
    pub name: String,
    /// The place of the column, counted from 1.
    pub ordinal: u32,
    /// The default as text.
    pub default: Option<String>,
    /// Whether the column may be NULL.
    pub nullable: bool,
    /// The type's bare name, for example `int`.
    pub data_type: String,
    /// The whole type, for example `int(11) unsigned`.
    pub column_type: String,
    /// The character set of text columns.
    pub charset: Option<String>,
    /// The collation of text columns.
    pub collation: Option<String>,
    /// `auto_increment`, `on update ...`, `VIRTUAL GENERATED` and the like.
    pub extra: String,
    /// The comment.
    pub comment: String,
    /// The expression of a generated column, else empty.
    pub generation: String,
}

/// One row of `information_schema.STATISTICS`: one part of one index.
#[derive(Clone, Debug)]
pub struct RawIndexPart {
    /// The index's name; `PRIMARY` for the primary key.
    pub index: String,
    /// Whether the index is unique.
    pub unique: bool,
    /// The place of the part in the index, counted from 1.
    pub place: u32,
    /// The column; none for an expression.
    pub column: Option<String>,
    /// The length of a prefix, in characters or bytes.
    pub prefix: Option<u32>,
    /// The expression, where the part is one.
    pub expression: Option<String>,
    /// Whether the optimizer may use the index.
    pub visible: bool,
    /// Whether the index spans all partitions.
    pub global: bool,
    /// The index's comment.
    pub comment: String,
}
