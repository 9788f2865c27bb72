//! The driver: carries out what the machines decide, against the real servers.

mod check;
mod chunk_read;
mod copies;
mod definitions;
mod follow;
mod lease;
mod link;
mod load;
mod migrate;
mod moves;
mod policy;
mod precheck;
mod prove;
mod reader;
mod repair;
mod schema;
mod sourced;
mod spill;
mod status;
mod timezone;
mod whole;
mod writing;

pub use check::{CheckOutcome, CheckedTable, CheckedView, check};
pub use migrate::{MigrateOutcome, Until, migrate};
pub use precheck::{Finding, Level, precheck};
pub use repair::{RepairOutcome, apply_repairs};
