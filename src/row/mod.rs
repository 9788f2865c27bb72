//! Rows as the proof sees them: packed cells, their canonical form, digests and sums.
//!
//! A *cell* is the text in which a scan returns a column's value, or NULL. Every road by which a
//! row reaches rowproof (a scan of the source, a scan of the target, a message of the feed) brings
//! it in this one form, and [`canonical`] turns cells into the bytes that are compared and hashed.

mod canonical;
mod digest;
mod hex;
mod json;
mod kind;
mod packed;
mod policy;
mod spool;
mod sum;
mod varint;
mod vector;

pub use canonical::{Canonical, CellError};
pub use digest::{DigestKey, RowDigest};
pub use hex::{hex, unhex};
pub use kind::{Kind, Temporal};
pub use packed::{Cells, Rows};
pub use policy::Policy;
pub use spool::{Place, Spool};
pub use sum::{SUM_BYTES, Sum};
pub use vector::{shortest as shortest_vector, widened as widened_vector};
