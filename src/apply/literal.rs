//! Cells as SQL literals.

use super::json_literal::json_literal;
use crate::row::{Kind, hex};

/// Returns the literal of a cell of this kind.
///
/// Numbers stand bare, binary values in hexadecimal, all else quoted. The literal means the same
/// on TiDB, OceanBase and MySQL when the session has rowproof's `sql_mode` and UTC.
pub fn literal(kind: &Kind, cell: Option<&[u8]>) -> String {
    let Some(bytes) = cell else {
        return "NULL".to_owned();
    };
    match kind {
        Kind::Integer | Kind::Decimal | Kind::Year | Kind::Bit if is_number(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        // Without an exponent it would be a decimal, which knows no -0.
        Kind::Float | Kind::Double if is_number(bytes) => {
            let exponent = if bytes.iter().any(|byte| b"eE".contains(byte)) {
                ""
            } else {
                "e0"
            };
            format!("{}{exponent}", String::from_utf8_lossy(bytes))
        }
        // A literal that is shorter than the column is not found by `=`.
        Kind::Binary(width) if bytes.len() < *width as usize => {
            let mut padded = bytes.to_vec();
            padded.resize(*width as usize, 0);
            format!("x'{}'", hex(&padded))
        }
        Kind::Binary(_) | Kind::Bytes => {
            if bytes.is_empty() {
                "''".to_owned()
            } else {
                format!("x'{}'", hex(bytes))
            }
        }
        Kind::Json => json_literal(bytes),
        _ => text_literal(bytes),
    }
}

/// Returns a quoted string literal; bytes that are not UTF-8 are written in hexadecimal.
pub fn text_literal(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("_utf8mb4 x'{}'", hex(bytes));
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\u{1a}' => quoted.push_str("\\Z"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Tells whether the bytes are a number that may stand bare in SQL: nothing else ever does.
fn is_number(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
        && bytes.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_leave_the_literal() {
        assert_eq!(literal(&Kind::Text, Some(b"a'b\\c\0\n")), r"'a\'b\\c\0\n'");
        assert_eq!(literal(&Kind::Text, Some(b"\xff")), "_utf8mb4 x'ff'");
        assert_eq!(literal(&Kind::Bytes, Some(b"\x00'")), "x'0027'");
        assert_eq!(literal(&Kind::Bytes, None), "NULL");
        assert_eq!(literal(&Kind::Integer, Some(b"-12")), "-12");
        assert_eq!(literal(&Kind::Integer, Some(b"1 OR 1")), "'1 OR 1'");
        assert_eq!(literal(&Kind::Double, Some(b"-0")), "-0e0");
        assert_eq!(literal(&Kind::Double, Some(b"1e300")), "1e300");
    }
}
