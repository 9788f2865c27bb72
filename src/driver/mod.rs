//! The driver: carries out what the machines decide, against the real servers.

mod adopt;
mod base_desk;
mod batch;
mod check;
mod chunk_read;
mod copies;
mod crew;
mod definitions;
mod failpoint;
mod follow;
mod fresh_base;
mod held;
mod lease;
mod link;
mod load;
mod migrate;
mod moves;
mod pace;
mod parted;
mod policy;
mod precheck;
mod prove;
mod reader;
mod repair;
mod schema;
mod sourced;
mod status;
mod timezone;
mod trust;
mod unproven;
mod whole;

pub use check::{CheckOutcome, CheckedTable, CheckedView, check};
pub use migrate::{MigrateOutcome, Until, migrate};
pub use precheck::{Finding, Level, precheck};
pub use repair::{RepairOutcome, apply_repairs};
