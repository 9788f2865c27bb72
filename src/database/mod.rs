//! The databases: sessions, scans, catalogs and rowproof's own record, over sqlx.
//!
//! Source and target are roles; TiDB and OceanBase are servers. Everything is read and written in
//! the text protocol, because the binary one loses zero dates in sqlx and OceanBase may refuse to
//! prepare statements.

mod catalog;
mod failure;
mod features;
mod fresh_base;
mod oceanbase;
mod record;
mod scan;
mod session;
mod tidb;
mod tls;
mod view;

pub use catalog::{Catalog, collations};
pub use features::show_create;
pub use fresh_base::FreshBase;
pub use oceanbase::{newest_fence, undo_retention_s};
pub use record::{FollowedRow, Holder, LoadedChunk, Record, TaskRow};
pub use scan::{
    Select, source_row_ids, source_scan, source_whole, target_keys, target_scan, target_whole,
};
pub use session::{Scan, Server, Session};
pub use tidb::{
    current_ts, duration_s, gc_life_time, has_row_ids, key_bounds, next_value, readable_ts,
};
pub use view::sequence_sql;
