//! Texts and bytes as SQL, for the generator: written apart from what rowproof itself does.

/// Returns a text as a quoted SQL string.
pub fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('\'', "''")
        .replace('\0', "\\0")
        .replace('\u{1a}', "\\Z");
    format!("'{escaped}'")
}

/// Returns bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
