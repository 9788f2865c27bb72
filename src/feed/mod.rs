//! The change feed: TiCDC's messages, the watermark, and the batches between two fences.

mod assembly;
mod fold;
mod image;
mod open_protocol;
mod watermark;

pub use assembly::{Assembly, Stretch};
pub use fold::{FoldError, FoldedRow, FoldedTable, fold};
pub use image::packed_row;
pub use open_protocol::{ColumnValue, Ddl, Image, Images, Message, RowChange, decode};
pub use watermark::Watermarks;

/// A TiDB timestamp (TSO): milliseconds since the epoch in the upper 46 bits, a counter in the
/// lower 18.
pub type CommitTs = u64;

/// Returns the wall clock part of a timestamp in milliseconds since the epoch.
pub fn physical_ms(ts: CommitTs) -> u64 {
    ts >> 18
}

#[cfg(test)]
pub use open_protocol::tests as testing;
