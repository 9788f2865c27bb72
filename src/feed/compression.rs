//! Values that TiCDC compresses, each by itself (`large-message-handle-compression`).
//!
//! Nothing in a message says whether and how its value is compressed, but its first bytes do:
//!
//! - TiCDC's JSON begins with `{"` or is `{}`, for its encoders write no white space there.
//! - LZ4 comes as a frame, which begins with the magic number 0x184D2204, little-endian
//!   (LZ4 frame format, "General Structure of LZ4 Frame format"). JSON never begins with byte 4.
//! - Snappy comes as a block: the length of what was compressed as a varint, then elements of which
//!   the first can only be a literal, whose tag ends in the bits 00, because a copy needs something
//!   to copy (snappy `format_description.txt`). The tags `"` (0x22), `}` (0x7D) and the second byte of
//!   the LZ4 magic (0x22) end in 10, 01 and 10. So no valid block begins as the two above do.
//!
//! That makes the three unmistakable, and a changefeed may even change from one to another.

use std::borrow::Cow;
use std::io::Read;

/// The first bytes of an LZ4 frame.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// The most bytes that one byte of a block of Snappy stands for: a copy of at most 64 bytes takes three
/// (`format_description.txt`).
const SNAPPY_RATIO: usize = 64;

/// What is said of a value that decompresses to more than there is room for.
pub const TOO_LARGE: &str = "its values decompress to more than 256 MiB; lower max-batch-size in the changefeed's sink URI, \
     or exclude the table";

/// Returns a value as it was before TiCDC compressed it, if it did.
///
/// # Errors
/// If it is damaged, or longer than `room` when it is decompressed (INV-8).
pub fn decompressed(value: &[u8], room: usize) -> Result<Cow<'_, [u8]>, &'static str> {
    if value.is_empty() || value.starts_with(b"{\"") || value.starts_with(b"{}") {
        return if value.len() <= room {
            Ok(Cow::Borrowed(value))
        } else {
            Err(TOO_LARGE)
        };
    }
    if value.starts_with(&LZ4_MAGIC) {
        return lz4(value, room).map(Cow::Owned);
    }
    snappy(value, room).map(Cow::Owned)
}

fn lz4(value: &[u8], room: usize) -> Result<Vec<u8>, &'static str> {
    const DAMAGED: &str = "a value compressed with LZ4 is damaged";
    let mut out = Vec::new();
    let frame = lz4_flex::frame::FrameDecoder::new(value);
    let limit = (room as u64).saturating_add(1);
    frame
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| DAMAGED)?;
    match out.len() {
        length if length > room => Err(TOO_LARGE),
        // A frame that is cut between two blocks reads as one that ends there.
        _ if !out.ends_with(b"}") => Err(DAMAGED),
        _ => Ok(out),
    }
}

fn snappy(value: &[u8], room: usize) -> Result<Vec<u8>, &'static str> {
    const DAMAGED: &str = "a value is neither JSON nor a valid block of Snappy or frame of LZ4";
    match snap::raw::decompress_len(value) {
        // Nothing is allocated for a length that no block of this size has.
        Ok(length) if length / SNAPPY_RATIO > value.len() => Err(DAMAGED),
        Ok(length) if length > room => Err(TOO_LARGE),
        Ok(_) => snap::raw::Decoder::new()
            .decompress_vec(value)
            .map_err(|_| DAMAGED),
        Err(_) => Err(DAMAGED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
    use proptest::prelude::*;
    use std::io::Write;

    /// Compresses as TiCDC does: a block.
    pub fn snappy_block(value: &[u8]) -> Vec<u8> {
        let block = snap::raw::Encoder::new().compress_vec(value);
        block.expect("room")
    }

    /// Compresses as TiCDC does: a frame.
    pub fn lz4_frame(value: &[u8]) -> Vec<u8> {
        let mut frame = FrameEncoder::new(Vec::new());
        frame.write_all(value).expect("memory");
        frame.finish().expect("memory")
    }

    #[test]
    fn inv_8_what_decompresses_to_more_than_there_is_room_for_is_refused() {
        let bomb = format!("{{\"u\":\"{}\"}}", "a".repeat(1 << 20));
        for value in [
            bomb.clone().into_bytes(),
            snappy_block(bomb.as_bytes()),
            lz4_frame(bomb.as_bytes()),
        ] {
            assert_eq!(
                decompressed(&value, bomb.len()).as_deref(),
                Ok(bomb.as_bytes())
            );
            assert_eq!(decompressed(&value, bomb.len() - 1), Err(TOO_LARGE));
        }
    }

    #[test]
    fn a_damaged_value_is_an_error() {
        let value =
            br#"{"u":{"id":{"t":8,"h":true,"f":11,"v":7}},"text":"aaaaaaaaaaaaaaaaaaaaaaaa"}"#;
        let (block, frame) = (snappy_block(value), lz4_frame(value));
        for cut in 1..block.len() {
            assert!(decompressed(&block[..cut], 1 << 20).is_err(), "{cut}");
        }
        for cut in 1..frame.len() - 4 {
            assert!(decompressed(&frame[..cut], 1 << 20).is_err(), "{cut}");
        }
        assert!(decompressed(b"plain text", 1 << 20).is_err());
        // Of several blocks, the first alone.
        let long = format!("{{\"u\":\"{}\"}}", "0123456789".repeat(1 << 16));
        let blocks = FrameInfo::new().block_size(BlockSize::Max64KB);
        let mut frame = FrameEncoder::with_frame_info(blocks, Vec::new());
        frame.write_all(long.as_bytes()).expect("memory");
        let frame = frame.finish().expect("memory");
        assert!(decompressed(&frame, 1 << 20).is_ok());
        let first = u32::from_le_bytes([frame[7], frame[8], frame[9], frame[10]]) & 0x7fff_ffff;
        let cut = &frame[..11 + first as usize];
        assert!(decompressed(cut, 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn every_json_comes_back_whatever_its_length(members in proptest::collection::vec(any::<u16>(), 0..300)) {
            let members: serde_json::Map<String, serde_json::Value> = members
                .into_iter()
                .map(|member| (member.to_string(), serde_json::Value::from(member)))
                .collect();
            let json = serde_json::to_vec(&members).expect("JSON");
            for value in [json.clone(), snappy_block(&json), lz4_frame(&json)] {
                let plain = decompressed(&value, 1 << 20);
                prop_assert_eq!(plain.as_deref(), Ok(json.as_slice()));
            }
        }

        #[test]
        fn any_bytes_are_decompressed_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), place in 0..200_usize, bit in 0..8_u8,
        ) {
            let _ = decompressed(&bytes, 1 << 16);
            let _ = decompressed(&[&LZ4_MAGIC, bytes.as_slice()].concat(), 1 << 16);
            for mut value in [snappy_block(&bytes), lz4_frame(&bytes)] {
                let place = place % value.len();
                value[place] ^= 1 << bit;
                if let Ok(plain) = decompressed(&value, 1 << 16) {
                    prop_assert!(plain.len() <= 1 << 16);
                }
            }
        }
    }
}
