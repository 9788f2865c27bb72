//! The change feed: TiCDC's messages, the watermark, and the batches between two fences.

mod assembly;
mod backlog;
#[cfg(test)]
mod carried;
mod changefeed;
mod compression;
mod damaged;
mod fold;
mod foreign;
#[cfg(test)]
mod golden;
mod image;
mod offsets;
mod open_protocol;
mod part;
mod shape;
mod watermark;
mod zone;

pub use assembly::{Assembly, Stretch};
pub use backlog::{Backlog, Origin, Position, Spill};
pub use changefeed::{
    Changefeed, ChangefeedIdentity, ChangefeedState, NoAnswer, decode_changefeed,
};
pub use compression::decompressed;
pub use damaged::rows_without_values;
pub use fold::{FoldError, Folded, fold};
pub use foreign::looks_like;
pub use image::{Certainty, Packer};
pub use offsets::Offsets;
pub use open_protocol::{
    Claim, ColumnValue, Ddl, Image, Images, Message, RECORD_BYTES_MAX, RowChange, decode,
    decode_claim,
};
pub use part::{FoldedRow, FoldedTable, LastState, Part};
pub use shape::Shapes;
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
    use crate::proof::{Ledger, RowHasher};
    use crate::row::{DigestKey, Rows};
    use crate::schema::testing::integer_table;
    use std::collections::BTreeMap;

    pub use super::backlog::testing::spill;
    pub use super::open_protocol::tests::{change, ddl};

    /// Returns the key of the digests of all unit tests.
    pub fn digest_key() -> DigestKey {
        DigestKey::from_bytes([5; 32])
    }

    /// Returns the ledger of the rows of an integer table, by key.
    pub fn ledger_of(content: &BTreeMap<u32, u32>) -> Ledger {
        let mut hasher = RowHasher::new(&integer_table("s", "t"), &digest_key());
        let mut ledger = Ledger::default();
        for (id, value) in content {
            let (id, value) = (id.to_string(), value.to_string());
            let mut row = Rows::new();
            row.push_row([Some(id.as_bytes()), Some(value.as_bytes())]);
            let digest = hasher.bucket_and_row(row.packed(0));
            let (bucket, row) = digest.expect("integers");
            ledger.add(bucket, &row);
        }
        ledger
    }
}
