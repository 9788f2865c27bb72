//! Tests by behaviour. Those of `layers` need nothing; all others run against the real servers of a
//! lab: set ROWPROOF_LAB_DIR to the directory of one that is up, as `make test` does.

mod adopt;
mod changefeed;
mod cli_errors;
mod corruption;
mod created_tables;
mod cuts;
mod definitions;
mod feed_dialects;
mod feed_exact;
mod feed_faults;
mod feed_gaps;
mod foreign_messages;
mod fuzz;
mod hazards;
mod held;
mod kafka;
mod key_order;
mod keyless;
mod keys;
// Release builds have no such points.
#[cfg(debug_assertions)]
mod kill_points;
mod kills;
mod lab;
mod layers;
mod lease;
mod ledger;
mod memory;
mod mutations;
mod oceanbase_limits;
mod oms_limits;
mod oracle;
mod plain_sql;
mod policies;
mod precheck;
mod proxy;
mod road;
mod routes;
mod schema;
mod secrecy;
mod security;
mod source_restart;
mod spool;
mod storm;
mod throttle;
mod topic_identity;
mod topics;
mod types;
mod web;
mod wide_rows;
