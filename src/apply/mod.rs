//! Folded rows into the ordered statements that bring the target from one fence to the next.

mod literal;
mod statement;

pub use literal::{literal, text_literal};
pub use statement::{
    column_list, delete_keys, insert_rows, key_condition, lookup_condition, written,
};
