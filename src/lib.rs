//! rowproof migrates TiDB to an OceanBase MySQL tenant and proves, row by row, that the two are
//! the same: while loading, while following changes, and whenever it is asked to check.
//!
//! ARCHITECTURE.md follows a row through these modules.

pub mod apply;
pub mod broker;
pub mod chunk;
pub mod database;
pub mod driver;
pub mod engine;
mod error;
mod failpoint;
pub mod feed;
pub mod fence;
pub mod journal;
pub mod proof;
pub mod repair;
pub mod report;
pub mod row;
pub mod schema;
pub mod task;
pub mod throttle;
pub mod web;

pub use error::{Error, ErrorKind, Result};
