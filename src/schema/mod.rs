//! Tables as both databases define them: the model, what of it rowproof can carry, and the DDL.

mod create;
mod model;
mod name;
mod support;

pub use create::{create_database, create_table};
pub use model::{
    Column, ColumnDefault, Index, IndexPart, Pairing, RawColumn, RawIndexPart, RawTable, Table,
};
pub use name::{TableName, quote};
pub use support::{Obstacle, compare, obstacles};

#[cfg(test)]
pub use model::testing;
