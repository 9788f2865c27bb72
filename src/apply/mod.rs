//! Folded rows into the ordered statements that bring the target from one fence to the next.

mod json_literal;
mod literal;
mod lookup;
mod statement;

pub use literal::{literal, text_literal, widened_elements};
pub use lookup::lookup_condition;
pub use statement::{
    column_list, delete_keys, insert_rows, key_condition, label_number, rows_condition, written,
};
