//! The change feed: TiCDC's messages, the watermark, and the batches between two fences.

mod assembly;
mod backlog;
mod compression;
mod damaged;
mod fold;
#[cfg(test)]
mod golden;
mod image;
mod offsets;
mod open_protocol;
mod part;
mod watermark;
mod zone;

pub use assembly::{Assembly, Stretch};
pub use backlog::{Backlog, Origin, Position, Spill};
pub use compression::decompressed;
pub use damaged::rows_without_values;
pub use fold::{FoldError, Folded, fold};
pub use image::{Certainty, packed_row};
pub use offsets::Offsets;
pub use open_protocol::{
    Claim, ColumnValue, Ddl, Image, Images, Message, RECORD_BYTES_MAX, RowChange, decode,
    decode_claim,
};
pub use part::{FoldedRow, FoldedTable, LastState, Part};
pub use watermark::Watermarks;
pub use zone::{Utc, Zone};

/// A TiDB timestamp (TSO): milliseconds since the epoch in the upper 46 bits, a counter in the
/// lower 18.
pub type CommitTs = u64;

/// Returns the wall clock part of a timestamp in milliseconds since the epoch.
pub fn physical_ms(ts: CommitTs) -> u64 {
    ts >> 18
}

/// Messages and places for unit tests.
#[cfg(test)]
pub mod testing {
    pub use super::backlog::testing::spill;
    pub use super::open_protocol::tests::{change, ddl};
}
