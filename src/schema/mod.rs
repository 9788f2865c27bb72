//! Tables as both databases define them: the model, what of it rowproof can carry, and the DDL.

mod choice;
mod compare;
mod create;
mod expression;
mod feature;
mod limit;
mod model;
mod name;
mod raw;
mod support;
mod view;

pub use choice::{Choices, LeftOut};
pub use compare::{
    SchemaDifference, SchemaVerdict, SchemaWord, Spellings, Weight, differences, spellings,
};
pub use create::{add_foreign_key, add_indexes, create_database, create_table};
pub use expression::{called_functions, for_target, named_columns, same_expression};
pub use feature::{AutoRandom, Check, Features, ForeignKey, Partition, Partitioning, same_key};
pub use model::{Column, ColumnDefault, Generation, Index, IndexPart, Pairing, Table};
pub use name::{TableName, quote};
pub use raw::{RawColumn, RawIndexPart, RawTable};
pub use support::{Obstacle, compare, is_temporary, notices, obstacles};
pub use view::{View, create_view, judge_view};

#[cfg(test)]
pub use model::testing;
