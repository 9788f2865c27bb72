//! Chunks: the pieces in which a table is read, written and proven.
//!
//! A table is cut into a few *stripes* by its key, which are worked on side by side; each stripe is
//! walked in chunks of a bounded size, every chunk starting behind the last key of the one before.

mod range;
mod size;
mod stripe;
mod walk;

pub use range::{Key, ROW_ID, Range};
pub use size::{CHUNK_BYTES_MAX, ChunkSize};
pub use stripe::stripes;
pub use walk::{Chunk, Walk};
