//! The driver: carries out what the machines decide, against the real servers.

mod base_desk;
mod batch;
mod check;
mod chunk_read;
mod copies;
mod definitions;
mod filter;
mod follow;
mod fresh_base;
mod held;
mod lease;
mod link;
mod load;
mod migrate;
mod policy;
mod precheck;
mod prove;
mod repair;
mod schema;
mod spill;
mod status;
mod whole;

pub use check::{CheckOutcome, CheckedTable, CheckedView, check};
pub use migrate::{MigrateOutcome, Until, migrate};
pub use precheck::{Finding, Level, precheck};
pub use repair::{RepairOutcome, apply_repairs};
